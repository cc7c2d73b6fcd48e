"""Causes that end a program from outside, and those that this library concludes: see `causes`. Pure."""

from __future__ import annotations

from .patterns import FailureCause, Pattern, permanent, temporary

END_CAUSES: tuple[FailureCause, ...] = (
    # -- ended from outside ---------------------------------------------------------------------------------
    permanent(
        "out_of_memory",
        "the program used more memory than its limit",
        "Raise memory_limit, or let the program use less. Files in /tmp, where its working directory is, count "
        "too: under gVisor they are in memory, except with delivery mount.",
        Pattern("terminated", "OOMKilled"),
        ran=True,
    ),
    permanent(
        "storage_exceeded",
        "the program wrote more to disk than its limit",
        "Let the program write less, or raise ephemeral_storage_limit and tmp_size.",
        Pattern(
            "pod status",
            "Evicted",
            "emptydir volume|exceeds the (total )?limit|exceeded its local ephemeral storage limit",
        ),
        ran=True,
    ),
    permanent(
        "evicted",
        "the node was short of resources and evicted the pod",
        "Run it again. Requests that are closer to what the program uses make eviction less likely.",
        Pattern("pod status", "Evicted|EvictionByEvictionAPI|TerminationByKubelet"),
        ran=None,
    ),
    permanent(
        "preempted",
        "a pod with a higher priority replaced the pod",
        "Run it again, or give it a higher priority (priority_class_name).",
        Pattern("pod status", "PreemptionByScheduler|Preempting|Preempted"),
        ran=None,
    ),
    permanent(
        "node_lost",
        "the pod's node is gone, or was shut down",
        "Run it again. On Spot nodes this can happen at any time.",
        Pattern("pod status", "NodeLost|NodeShutdown|Shutdown|Terminated|DeletionByTaintManager|DeletionByPodGC"),
        Pattern("terminated", "ContainerStatusUnknown"),
        ran=None,
    ),
    permanent(
        "suspended",
        "the Job was suspended, which deletes its pod",
        "A queue such as Kueue has given its place to another workload. Run it again, or give it a higher priority"
        " in the queue (labels: kueue.x-k8s.io/priority-class).",
        Pattern("pod status", "JobSuspended"),
        ran=None,
    ),
    permanent(
        "job_deadline",
        "the Job reached its deadline",
        "The program ran past all other limits: it had stopped its runner, or the cluster was very slow.",
        Pattern("pod status", "DeadlineExceeded"),
        ran=None,
    ),
    temporary(
        "node_refused",
        "the node refused the pod",
        "The scheduler and the node disagreed about what fits on it. `kubectl describe nodes` shows what is free.",
        # https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/lifecycle/predicate.go,
        # and similar files
        Pattern(
            "pod status",
            "OutOf.*|Unexpected.*|Node(Affinity|Name|Ports)|TaintToleration|AdmissionFailed|UnknownReason"
            "|InvalidNodeInfo|PodOS.*|.*(NotSupported|Forbidden)|TopologyAffinityError|SMTAlignmentError|AppArmor",
        ),
        # After a restart the kubelet may refuse pods that are already running.
        ran=None,
    ),
    permanent(
        "deleted",
        "another client deleted the pod or its Job",
        "Find out who deletes Jobs in this namespace: a person, a controller, `gke-sandbox clean`.",
        Pattern("pod status", "Deleted"),
        ran=None,
    ),
    permanent(
        "pod_failed",
        "the pod failed",
        "The reason and the message are from the kubelet.",
        Pattern("pod status"),
        ran=None,
    ),
    permanent(
        "killed_by_signal",
        "the container's first process was killed",
        "The program killed its own runner, or the node did.",
        Pattern("terminated", "", "killed with signal"),
        ran=True,
    ),
    # -- what this library concludes ------------------------------------------------------------------------
    permanent(
        "runner_failed",
        "the image's Python could not run the runner",
        "The image must have Python 3.8 or newer as python3, and a writable directory.",
        # Its container has started, and its log may be incomplete.
        ran=None,
    ),
    permanent(
        "runner_crashed",
        "the runner failed after it had started the program",
        "The program may have used up the memory that the runner needs, or interfered with the runner.",
        ran=True,
    ),
    temporary(
        "not_sent",
        "the program could not be sent to its container",
        "It has not run: run it again. If it happens often, a proxy may not support WebSockets, or the network may"
        " be unreliable; delivery=env and mount need no such connection.",
        ran=False,
    ),
    permanent(
        "log_too_large",
        "the program wrote to the log of its pod, which would fill the node's disk",
        "Let the program write to its own stdout and stderr, which are limited, and not to those of the runner "
        "(/proc/1/fd/1).",
        ran=True,
    ),
    permanent(
        "unsafe_admission_change",
        "an admission policy or webhook removed protections, or made a second run possible",
        "Find the policy or webhook (kubectl get mutatingwebhookconfigurations,mutatingadmissionpolicies) and"
        " exempt this namespace from it.",
        ran=None,
    ),
    temporary(
        "no_pod",
        "the Job has no pod, and no Event explains why",
        "Check that the cluster's Job controller runs. `kubectl get events` may show more.",
        ran=None,
    ),
    temporary(
        "slow_start",
        "the container was still being created",
        "If a node is being added or the image is large, use a longer startup_timeout.",
        ran=None,
    ),
    temporary(
        "pods_not_seen",
        "the pods could not be listed",
        "The message contains the error of the API server or the network. The program may have run: run it "
        "again only if that does no harm.",
        ran=None,
    ),
)
