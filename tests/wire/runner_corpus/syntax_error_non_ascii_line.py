name = 'héllo wörld' 'x' y z
