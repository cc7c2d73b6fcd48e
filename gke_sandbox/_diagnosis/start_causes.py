"""Causes of a sandbox that did not start: see `causes`, which has the whole table. Pure."""

from __future__ import annotations

from .patterns import FailureCause, Pattern, permanent, temporary

PULL_REASONS = "ErrImagePull|ImagePullBackOff"
"""The kubelet's reasons for an image that it could not pull, as a pattern."""
_CHECK_IMAGE = "Check the image's name, and that the nodes can reach its registry."
_INIT_CONTAINER_HINT = (
    "This library has not added the container: a webhook or policy of the cluster has. A label or annotation can "
    "prevent that: the label sidecar.istio.io/inject=false for Istio, the annotation linkerd.io/inject=disabled "
    "for Linkerd. Otherwise ask the cluster's administrator."
)

# The kubelet's messages for a ConfigMap that it does not have yet: its cache is behind, the pod is not registered
# for the ConfigMap yet, or the request for it failed.
_CONFIG_MAP_LATE = (
    r'configmap "[^"]*" not found|failed to sync configmap cache|object "[^"]*"/"[^"]*" not registered'
    r"|/configmaps/.*(refused|reset|timed? ?out|deadline exceeded|EOF|no route|unreachable)"
)

START_CAUSES: tuple[FailureCause, ...] = (
    # -- the image ------------------------------------------------------------------------------------------
    permanent(
        "image_name_invalid",
        "the image's name is not valid",
        "Check the image's name.",
        Pattern("waiting", "InvalidImageName"),
        Pattern("waiting", PULL_REASONS, "invalid reference"),
    ),
    permanent(
        "image_never_pulled",
        "the image is not on the node, and the pull policy is Never",
        "Put the image on the nodes, or use the pull policy IfNotPresent.",
        Pattern("waiting", "ErrImageNeverPull"),
    ),
    temporary(
        "image_pull_throttled",
        "the registry allows no more pulls at the moment",
        "Wait, log in to the registry (image_pull_secrets), or use a mirror of it.",
        Pattern("waiting", PULL_REASONS, r"toomanyrequests|too many requests|\b429\b|rate limit"),
    ),
    permanent(
        "image_pull_denied",
        "the registry does not give the image to the nodes",
        "Give the nodes access: image_pull_secrets, or the node's service account. Some registries return the"
        " same error for an image that does not exist.",
        Pattern("waiting", PULL_REASONS, r"denied|unauthorized|forbidden|authentication required|no basic auth"),
    ),
    permanent(
        "registry_not_found",
        "the image's registry does not exist, or the nodes cannot resolve its name",
        _CHECK_IMAGE,
        Pattern("waiting", PULL_REASONS, "no such host"),
    ),
    permanent(
        "image_not_found",
        "the image does not exist",
        "Check the image's name and tag, and that it is built for the nodes' architecture.",
        Pattern("waiting", PULL_REASONS, "not found|manifest unknown|does not exist|no match for platform"),
    ),
    temporary(
        "image_pull_failed",
        "the image could not be pulled; the kubelet retries",
        _CHECK_IMAGE,
        Pattern("waiting", PULL_REASONS),
    ),
    # -- its content, its container -------------------------------------------------------------------------
    temporary(
        "config_map_late",
        "the kubelet does not have the ConfigMap with the program yet",
        'The kubelet retries after up to 13 s. If the API server is far away or busy, delivery="mount" is faster.',
        Pattern("waiting", "CreateContainerConfigError", _CONFIG_MAP_LATE),
        Pattern("pod event", "FailedMount", _CONFIG_MAP_LATE),
    ),
    permanent(
        "container_config_wrong",
        "the container's configuration is invalid",
        "The message names what is missing.",
        Pattern(
            "waiting",
            "CreateContainerConfigError",
            r"couldn't find key|secret \"[^\"]*\" not found|runAsNonRoot|non-root",
        ),
    ),
    temporary(
        "container_config_late",
        "the container's configuration is not complete yet; the kubelet retries",
        "The message is from the kubelet, which may not have reached the API server yet.",
        Pattern("waiting", "CreateContainerConfigError"),
    ),
    permanent(
        "python_missing",
        "the image has no python3",
        "Use an image with Python 3.8 or newer as python3 on its PATH.",
        Pattern(
            "start", "", "executable file not found|error finding executable|python3.*(not found|no such file)"
        ),
    ),
    permanent(
        "node_disk_full",
        "the node has no disk space left",
        "Run it again: another node may have space. Check this one (kubectl describe node).",
        Pattern("start", "", "no space left on device|disk quota exceeded"),
    ),
    permanent(
        "bad_working_directory",
        "the image's working directory cannot be used",
        "Give the image a WORKDIR that exists and that the user run_as_user may enter.",
        Pattern("start", "", r"chdir|\bcwd\b|working directory|workdir|mkdir"),
    ),
    permanent(
        "permission_denied",
        "the image's files are not accessible to this user",
        "The program runs as run_as_user (1001): its python3 must be readable and executable for that user.",
        Pattern("start", "", "permission denied|operation not permitted"),
    ),
    permanent(
        "container_not_started",
        "the container could not be started",
        "The message is from the container runtime.",
        Pattern("start"),
    ),
    temporary(
        "container_start_retried",
        "the container could not be started; the kubelet retries",
        "The message is from the container runtime.",
        Pattern("waiting", "CreateContainerError|RunContainerError|CrashLoopBackOff"),
    ),
    temporary(
        "container_waiting",
        "the container is waiting",
        "The message is from the kubelet.",
        Pattern("waiting"),
    ),
    # -- containers that this library has not added ---------------------------------------------------------
    permanent(
        "init_container_failed",
        "a container that the cluster added to the pod has failed, and the program cannot start without it",
        _INIT_CONTAINER_HINT,
        Pattern("init container", "failed"),
    ),
    temporary(
        "init_container_retried",
        "a container that the cluster added to the pod does not start; the kubelet retries",
        _INIT_CONTAINER_HINT,
        Pattern("init container", "retried"),
    ),
    # -- a node ---------------------------------------------------------------------------------------------
    temporary(
        "not_enough_cpu",
        "no node has enough free CPU",
        "Lower cpu_request, or let the node pool grow.",
        Pattern("scheduling", "", "insufficient cpu"),
    ),
    temporary(
        "not_enough_memory",
        "no node has enough free memory",
        "Lower memory_request, or let the node pool grow.",
        Pattern("scheduling", "", "insufficient memory"),
    ),
    temporary(
        "not_enough_room",
        "no node has room for another pod of this size",
        "Wait until other pods have ended, or let the node pool grow.",
        Pattern("scheduling", "", "insufficient |too many pods"),
    ),
    temporary(
        "node_pressure",
        "a node is short of disk space, memory or process ids, and accepts no pod at the moment",
        "Wait until the node has freed some, or add nodes. `kubectl describe nodes` shows their conditions.",
        Pattern("scheduling", "", r"taint \{node\.kubernetes\.io/(disk|memory|pid)-pressure\b"),
        Pattern("pod status", "Evicted", "node had condition"),
        # A kubelet that was restarted may reject pods that are already running.
        ran=None,
    ),
    temporary(
        "node_not_ready",
        "a node is not ready, or cannot be reached",
        "Wait until the node is ready. `kubectl describe nodes` shows the conditions of each node.",
        Pattern(
            "scheduling",
            "",
            r"taint \{node\.(kubernetes\.io/(not-ready|unreachable|network-unavailable|out-of-service)"
            r"|cloudprovider\.kubernetes\.io/(uninitialized|shutdown))\b",
        ),
    ),
    temporary(
        "node_cordoned",
        "a node accepts no new pods, because it was cordoned or is being removed",
        "Wait until the node is back (kubectl uncordon), or another one is added.",
        Pattern(
            "scheduling",
            "",
            r"were unschedulable"
            r"|taint \{(node\.kubernetes\.io/unschedulable|ToBeDeletedByClusterAutoscaler)\b",
        ),
    ),
    temporary(
        "node_tainted",
        "every node that could run the pod has a taint that the pod does not tolerate",
        "List the taints: kubectl describe nodes. Those of Kubernetes (node.kubernetes.io/...) usually pass; for "
        "others, add a toleration (tolerations).",
        Pattern("scheduling", "", "untolerated taint|didn't tolerate"),
    ),
    temporary(
        "node_selector_unmatched",
        "no node has the labels that the pod selects",
        "Correct node_selector, or add a node with these labels. `kubectl get nodes --show-labels` lists them.",
    ),
    temporary(
        "no_gvisor_node",
        "no node accepts the pod, usually because none runs gVisor",
        "Run `kubectl get nodes -L sandbox.gke.io/runtime` to list the nodes that run gVisor. A node pool "
        "that is still growing needs a longer startup_timeout.",
        Pattern("scheduling", "", "node affinity|node selector"),
    ),
    temporary(
        "unschedulable",
        "no node accepts the pod",
        "The message is from the scheduler; `kubectl describe nodes` shows the labels and taints of each node. A "
        "node pool that is still growing needs a longer startup_timeout.",
        Pattern("scheduling"),
    ),
    temporary(
        "node_is_being_made",
        "the cluster autoscaler is adding a node for the pod",
        "A new node takes a minute or two: startup_timeout must be longer than that.",
        Pattern("pod event", "TriggeredScaleUp"),
    ),
    temporary(
        "scale_up_failed",
        "the cluster autoscaler could not add a node; it retries",
        "The message contains the reason: a quota of the project, or a zone without free machines.",
        Pattern("pod event", "FailedScaleUp"),
        Pattern("pod event", "NotTriggerScaleUp", "backoff"),
    ),
    temporary(
        "node_pools_full",
        "the node pools that accept the pod have reached their maximum size",
        "Wait until other pods have ended, or raise the maximum of the node pools.",
        Pattern("pod event", "NotTriggerScaleUp", r"max\b.*\breached"),
    ),
    permanent(
        "cannot_scale_up",
        "the cluster autoscaler cannot add a node that accepts the pod",
        "Create a node pool with GKE Sandbox that can grow, or select existing nodes (node_selector, "
        "tolerations).",
        Pattern("pod event", "NotTriggerScaleUp"),
    ),
    permanent(
        "runtime_handler_missing",
        "the node has no gVisor: its RuntimeClass names a handler that the node does not have",
        "Install runsc on the nodes, or let the RuntimeClass select the nodes that have it.",
        Pattern(
            "pod event",
            "FailedCreatePodSandBox",
            r"no runtime for|unknown runtime|runtime ?handler.*(not|unsupported)|invalid runtime"
            r"|find runtime handler|resolve runtime path|binary not installed"
            r'|runsc"?: (executable file not found|no such file)',
        ),
    ),
    temporary(
        "pod_sandbox_failed",
        "the node could not prepare the pod; it retries",
        "The message is from the node. If it persists, check the node (kubectl describe node).",
        Pattern("pod event", "FailedCreatePodSandBox"),
    ),
    temporary(
        "mount_failed",
        "a volume could not be mounted; the kubelet retries",
        "The message names the volume.",
        Pattern("pod event", "FailedMount|FailedAttachVolume"),
    ),
)
