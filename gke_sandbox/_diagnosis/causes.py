"""Why a sandbox did not start, or was ended: every cause, how it is recognised, what it means. Pure.

docs/troubleshooting.md shows this table; a test holds the two together. The order counts: the first cause with a
sign that fits is the one.
"""

from __future__ import annotations

import re

from .patterns import Cause, Place, Ran, Sign

__all__ = ["CAUSES", "Cause", "Place", "Ran", "cause", "recognise"]

_PULL = "ErrImagePull|ImagePullBackOff"
# Names that are told beside what is wrong with them: in quotes, with a path, a tag or a port, or by their place.
_NAMES = re.compile(r'"[^"\s]*"|lookup \S+|manifest \S+ in|\S*[/:@]\w\S*')
_CHECK_IMAGE = "check the image's name, and that the nodes can reach its registry"

# The kubelet's ways to say that it has not got a ConfigMap yet: its own cache is behind, it does not know that the
# pod needs it, or the API server did not answer the request that is named.
_CONFIG_MAP_LATE = (
    r'configmap "[^"]*" not found|failed to sync configmap cache|object "[^"]*"/"[^"]*" not registered'
    r"|/configmaps/.*(refused|reset|timed? ?out|deadline exceeded|EOF|no route|unreachable)"
)

CAUSES: tuple[Cause, ...] = (
    # -- the image ------------------------------------------------------------------------------------------
    Cause(
        "image_name_invalid",
        "the image's name is not valid",
        "check the image's name",
        (Sign("waiting", "InvalidImageName"), Sign("waiting", _PULL, "invalid reference")),
        final=True,
    ),
    Cause(
        "image_never_pulled",
        "the image is not on the node, and the pull policy is Never",
        "put the image on the nodes, or use the pull policy IfNotPresent",
        (Sign("waiting", "ErrImageNeverPull"),),
        final=True,
    ),
    Cause(
        "image_pull_throttled",
        "the registry allows no more pulls for now",
        "wait, log in to the registry (image_pull_secrets), or use a mirror of it",
        (Sign("waiting", _PULL, r"toomanyrequests|too many requests|\b429\b|rate limit"),),
    ),
    Cause(
        "image_pull_denied",
        "the registry does not give the image to the nodes",
        "give the nodes access: image_pull_secrets, or the node's service account. "
        "Some registries answer the same for an image that does not exist",
        (Sign("waiting", _PULL, r"denied|unauthorized|forbidden|authentication required|no basic auth"),),
        final=True,
    ),
    Cause(
        "registry_not_found",
        "the image's registry does not exist, as far as the nodes can tell",
        _CHECK_IMAGE,
        (Sign("waiting", _PULL, "no such host"),),
        final=True,
    ),
    Cause(
        "image_not_found",
        "the image does not exist",
        "check the image's name and tag, and that it is made for the nodes' architecture",
        (Sign("waiting", _PULL, "not found|manifest unknown|does not exist|no match for platform"),),
        final=True,
    ),
    Cause(
        "image_pull_failed",
        "the image could not be pulled, and is tried again",
        _CHECK_IMAGE,
        (Sign("waiting", _PULL),),
    ),
    # -- its content, its container -------------------------------------------------------------------------
    Cause(
        "config_map_late",
        "the kubelet does not see the ConfigMap with the program yet",
        "the kubelet looks again, if need be after 13 s; a cluster whose API server is far away or busy is better "
        'off with delivery="mount"',
        (
            Sign("waiting", "CreateContainerConfigError", _CONFIG_MAP_LATE),
            Sign("pod event", "FailedMount", _CONFIG_MAP_LATE),
        ),
    ),
    Cause(
        "container_config_wrong",
        "the container's configuration cannot be put together",
        "the message names what is missing",
        (
            Sign(
                "waiting",
                "CreateContainerConfigError",
                r"couldn't find key|secret \"[^\"]*\" not found|runAsNonRoot|non-root",
            ),
        ),
        final=True,
    ),
    Cause(
        "container_config_late",
        "the container's configuration cannot be put together yet, and is tried again",
        "the message is the kubelet's; it may not have heard from the API server yet",
        (Sign("waiting", "CreateContainerConfigError"),),
    ),
    Cause(
        "python_missing",
        "the image has no python3",
        "use an image with Python 3.8 or newer as python3 on its PATH",
        (
            Sign(
                "start", "", "executable file not found|error finding executable|python3.*(not found|no such file)"
            ),
        ),
        final=True,
    ),
    Cause(
        "node_disk_full",
        "the node has no disk space left",
        "run it again: another node may have room; look at this one (kubectl describe node)",
        (Sign("start", "", "no space left on device|disk quota exceeded"),),
        final=True,
    ),
    Cause(
        "bad_working_directory",
        "the image's working directory cannot be used",
        "give the image a WORKDIR that exists and that the user run_as_user may enter",
        (Sign("start", "", r"chdir|\bcwd\b|working directory|workdir|mkdir"),),
        final=True,
    ),
    Cause(
        "permission_denied",
        "the image's files are not for this user",
        "the program runs as run_as_user (1001): its python3 must be readable and executable for that user",
        (Sign("start", "", "permission denied|operation not permitted"),),
        final=True,
    ),
    Cause(
        "container_not_started",
        "the container could not be started",
        "the message is the container runtime's",
        (Sign("start"),),
        final=True,
    ),
    Cause(
        "container_start_retried",
        "the container could not be started, and is tried again",
        "the message is the container runtime's",
        (Sign("waiting", "CreateContainerError|RunContainerError|CrashLoopBackOff"),),
    ),
    Cause(
        "container_waiting",
        "the container waits",
        "the message is the kubelet's",
        (Sign("waiting"),),
    ),
    # -- a node ---------------------------------------------------------------------------------------------
    Cause(
        "not_enough_cpu",
        "no node has enough cpu free",
        "lower cpu_request, or give the node pool room to grow",
        (Sign("scheduling", "", "insufficient cpu"),),
    ),
    Cause(
        "not_enough_memory",
        "no node has enough memory free",
        "lower memory_request, or give the node pool room to grow",
        (Sign("scheduling", "", "insufficient memory"),),
    ),
    Cause(
        "not_enough_room",
        "no node has room for another pod like this",
        "wait until other pods have ended, or give the node pool room to grow",
        (Sign("scheduling", "", "insufficient |too many pods"),),
    ),
    Cause(
        "no_gvisor_node",
        "no node takes the pod: there is none that runs gVisor, as a rule",
        "`kubectl get nodes -L sandbox.gke.io/runtime` shows the nodes that run gVisor; a node pool that is still "
        "growing needs a longer startup_timeout",
        (
            Sign(
                "scheduling",
                "",
                "node affinity|node selector|untolerated taint|didn't tolerate|no nodes available",
            ),
        ),
    ),
    Cause(
        "unschedulable",
        "no node takes the pod",
        "the message is the scheduler's; a node pool that is still growing needs a longer startup_timeout",
        (Sign("scheduling"),),
    ),
    Cause(
        "node_is_being_made",
        "the cluster autoscaler makes a node for the pod",
        "a new node takes a minute or two: startup_timeout must be longer than that",
        (Sign("pod event", "TriggeredScaleUp"),),
    ),
    Cause(
        "scale_up_failed",
        "the cluster autoscaler could not make a node, and tries again",
        "the message says why: a quota of the project, or a zone that is out of machines",
        (
            Sign("pod event", "FailedScaleUp"),
            Sign("pod event", "NotTriggerScaleUp", "backoff"),
        ),
    ),
    Cause(
        "node_pools_full",
        "the node pools that could take the pod are as large as they may be",
        "wait until other pods have ended, or raise the node pools' maximum",
        (Sign("pod event", "NotTriggerScaleUp", r"max\b.*\breached"),),
    ),
    Cause(
        "cannot_scale_up",
        "the cluster autoscaler cannot make a node that would take the pod",
        "make a node pool with GKE Sandbox that may grow, or name nodes that exist (node_selector, tolerations)",
        (Sign("pod event", "NotTriggerScaleUp"),),
        final=True,
    ),
    Cause(
        "runtime_handler_missing",
        "the node has no gVisor: its RuntimeClass names a handler that the node does not know",
        "install runsc on the nodes, or let the RuntimeClass select the nodes that have it",
        (
            Sign(
                "pod event",
                "FailedCreatePodSandBox",
                r"no runtime for|unknown runtime|runtime ?handler.*(not|unsupported)|invalid runtime"
                r"|find runtime handler|resolve runtime path|binary not installed"
                r'|runsc"?: (executable file not found|no such file)',
            ),
        ),
        final=True,
    ),
    Cause(
        "pod_sandbox_failed",
        "the node could not prepare the pod, and tries again",
        "the message is the node's; if it stays so, look at the node (kubectl describe node)",
        (Sign("pod event", "FailedCreatePodSandBox"),),
    ),
    Cause(
        "mount_failed",
        "a volume could not be mounted, and is tried again",
        "the message names the volume",
        (Sign("pod event", "FailedMount|FailedAttachVolume"),),
    ),
    # -- refused by the API server --------------------------------------------------------------------------
    Cause(
        "pod_security",
        "the namespace's Pod Security standard refuses the pod",
        "the message names the field; pods of this library satisfy `restricted`, so that a change of them "
        "(a webhook's, a policy's) is likely",
        (Sign("admission", "", "violates PodSecurity"),),
        final=True,
    ),
    Cause(
        "quota_exceeded",
        "the namespace's quota is used up",
        "wait until other pods have ended, or raise the ResourceQuota that the message names",
        (Sign("admission", "", "exceeded quota"),),
    ),
    Cause(
        "quota_wants_more",
        "the namespace's quota asks for a limit that the pod does not have",
        "the message names what the ResourceQuota wants; a LimitRange can set a default",
        (Sign("admission", "", "failed quota"),),
        final=True,
    ),
    Cause(
        "runtime_class_missing",
        "the cluster has no such RuntimeClass",
        "on GKE make a node pool with GKE Sandbox; elsewhere install gVisor and its RuntimeClass, or name another "
        "(runtime_class_name)",
        (Sign("admission", "", "RuntimeClass .* not found"),),
        final=True,
    ),
    Cause(
        "limit_range",
        "the namespace's LimitRange refuses the pod's requests or limits",
        "change cpu_request, cpu_limit, memory_request or memory_limit to what the message allows",
        (Sign("admission", "", r"(maximum|minimum) \S+ usage per|limit to request ratio"),),
        final=True,
    ),
    Cause(
        "webhook_denied",
        "an admission policy of the cluster refuses the pod",
        "the message is the policy's; ask who runs the cluster",
        (Sign("admission", "", "admission webhook|denied the request|ValidatingAdmissionPolicy"),),
        final=True,
    ),
    Cause(
        "service_account_missing",
        "there is no such service account in the namespace",
        "make it, or name another (service_account_name)",
        (Sign("admission", "", r"service ?account .*not found|looking up service account"),),
        final=True,
    ),
    Cause(
        "priority_class_missing",
        "the cluster has no such PriorityClass",
        "make it, or name another (priority_class_name)",
        (Sign("admission", "", "no PriorityClass with name"),),
        final=True,
    ),
    Cause(
        "pod_refused",
        "the API server refuses the pod",
        "the message is the API server's; the Job's controller keeps trying",
        (Sign("admission"),),
    ),
    # -- ended from outside ---------------------------------------------------------------------------------
    Cause(
        "out_of_memory",
        "the program used more memory than its limit",
        "raise memory_limit, or let the program use less",
        (Sign("terminated", "OOMKilled"),),
        ran="yes",
        final=True,
    ),
    Cause(
        "storage_exceeded",
        "the program wrote more to disk than its limit",
        "let the program write less, or raise ephemeral_storage_limit and tmp_size",
        (
            Sign(
                "pod status",
                "Evicted",
                "emptydir volume|exceeds the (total )?limit|exceeded its local ephemeral storage limit",
            ),
        ),
        ran="yes",
        final=True,
    ),
    Cause(
        "evicted",
        "the node ran short and evicted the pod",
        "run it again; requests nearer to what the program uses make eviction less likely",
        (Sign("pod status", "Evicted|EvictionByEvictionAPI|TerminationByKubelet"),),
        ran="maybe",
        final=True,
    ),
    Cause(
        "preempted",
        "the pod had to make room for a more important one",
        "run it again, or give it a higher priority (priority_class_name)",
        (Sign("pod status", "PreemptionByScheduler|Preempting|Preempted"),),
        ran="maybe",
        final=True,
    ),
    Cause(
        "node_lost",
        "the pod's node is gone, or was shut down",
        "run it again; on Spot nodes this is to be expected",
        (
            Sign("pod status", "NodeLost|NodeShutdown|Shutdown|Terminated|DeletionByTaintManager|DeletionByPodGC"),
            Sign("terminated", "ContainerStatusUnknown"),
        ),
        ran="maybe",
        final=True,
    ),
    Cause(
        "job_deadline",
        "the Job reached its deadline",
        "the program outlived all other limits: it had stopped its own runner, or the cluster was very slow",
        (Sign("pod status", "DeadlineExceeded"),),
        ran="maybe",
        final=True,
    ),
    Cause(
        "node_refused",
        "the node refused the pod",
        "run it again: the scheduler and the node disagreed about what the node takes",
        (
            # https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/lifecycle/predicate.go, and its kin
            Sign(
                "pod status",
                "OutOf.*|Unexpected.*|Node(Affinity|Name|Ports)|TaintToleration|AdmissionFailed|UnknownReason"
                "|InvalidNodeInfo|PodOS.*|.*(NotSupported|Forbidden)|TopologyAffinityError|SMTAlignmentError|AppArmor",
            ),
        ),
        # A kubelet that is started anew may refuse what runs already.
        ran="maybe",
        final=True,
    ),
    Cause(
        "deleted",
        "somebody deleted the pod or its Job",
        "look for who deletes Jobs in this namespace: a person, a controller, `gke-sandbox clean`",
        (Sign("pod status", "Deleted"),),
        ran="maybe",
        final=True,
    ),
    Cause(
        "pod_failed",
        "the pod failed",
        "the reason and the message are the kubelet's",
        (Sign("pod status"),),
        ran="maybe",
        final=True,
    ),
    Cause(
        "killed_by_signal",
        "the container's first process was killed",
        "the program killed its own runner, or the node did",
        (Sign("terminated", "", "killed with signal"),),
        ran="yes",
        final=True,
    ),
    # -- what this library concludes ------------------------------------------------------------------------
    Cause(
        "runner_failed",
        "the image's Python could not run the runner",
        "the image must have Python 3.8 or newer as python3, and somewhere to write",
        (Sign("client"),),
        final=True,
    ),
    Cause(
        "no_pod",
        "the Job got no pod, and nothing says why",
        "is the cluster's Job controller at work? `kubectl get events` may say more",
        (Sign("client"),),
        ran="maybe",
    ),
    Cause(
        "slow_start",
        "the container was still being created",
        "a node that is being made, or a large image, needs a longer startup_timeout",
        (Sign("client"),),
        ran="maybe",
    ),
    Cause(
        "pods_not_seen",
        "the pods could not be looked at",
        "the message says what the API server, or the network, answered; the program may have run: run it again "
        "only if that does no harm",
        (Sign("client"),),
        ran="maybe",
    ),
)

_BY_NAME = {each.name: each for each in CAUSES}


def cause(name: str) -> Cause:
    """A cause by its name."""
    return _BY_NAME[name]


def recognise(place: Place, reason: str, message: str) -> Cause | None:
    """The cause that Kubernetes' word at this place stands for."""
    if re.fullmatch(_PULL, reason):
        # An image may be called "forbidden", and its tag be 429.
        message = _NAMES.sub("", message)
    return next(
        (each for each in CAUSES for sign in each.signs if sign.fits(place, reason, message)),
        None,
    )
