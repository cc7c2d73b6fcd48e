"""Kubernetes' reasons and messages with their expected cause, for every cause and every pattern."""

from __future__ import annotations

from gke_sandbox._diagnosis.patterns import Source

NO_SUCH_HOST = (
    'failed to pull and unpack image "registry.invalid/nosuch:1": failed to resolve reference '
    '"registry.invalid/nosuch:1": failed to do request: Head "https://registry.invalid/v2/nosuch/manifests/1": '
    "dial tcp: lookup registry.invalid on 10.0.0.10:53: no such host"
)
PULLING = (
    'Failed to pull image "{0}": rpc error: code = DeadlineExceeded desc = failed to pull and unpack image "{0}": '
    'failed to resolve reference "{0}": failed to do request: Head "https://x/v2/{0}": context deadline exceeded'
)
TAINTED = (
    "0/1 nodes are available: 1 node(s) had untolerated taint {{{0}}}. preemption: 0/1 nodes are available: 1 "
    "Preemption is not helpful for scheduling."
)
CONFIG_MAP_REFUSED = (
    'Get "https://10.0.0.1:443/api/v1/namespaces/ns/configmaps/gke-sandbox-b5": dial tcp 10.0.0.1:443: connect: '
    "connection refused"
)

# The source, the reason, the message, and the expected cause.
MESSAGES: list[tuple[Source, str, str, str]] = [
    ("waiting", "ErrImagePull", NO_SUCH_HOST, "registry_not_found"),
    (
        "waiting",
        "ImagePullBackOff",
        f'Back-off pulling image "x": ErrImagePull: {NO_SUCH_HOST}',
        "registry_not_found",
    ),
    (
        "waiting",
        "ErrImagePull",
        'failed to resolve reference "docker.io/library/python:nope": docker.io/library/python:nope: not found',
        "image_not_found",
    ),
    (
        "waiting",
        "ErrImagePull",
        "pull access denied, repository does not exist or may require authorization",
        "image_pull_denied",
    ),
    ("waiting", "ErrImagePull", "failed to authorize: 403 Forbidden", "image_pull_denied"),
    ("waiting", "ErrImagePull", "context deadline exceeded", "image_pull_failed"),
    ("waiting", "ImagePullBackOff", 'Back-off pulling image "python:3.11-slim"', "image_pull_failed"),
    ("waiting", "ErrImagePull", "429 Too Many Requests", "image_pull_throttled"),
    ("waiting", "ErrImagePull", "toomanyrequests: You have reached your pull rate limit", "image_pull_throttled"),
    ("waiting", "ErrImagePull", PULLING.format("ghcr.io/acme/forbidden-fruit:1"), "image_pull_failed"),
    ("waiting", "ErrImagePull", PULLING.format("app:429"), "image_pull_failed"),
    ("waiting", "ImagePullBackOff", 'Back-off pulling image "unauthorized"', "image_pull_failed"),
    ("waiting", "ErrImagePull", "manifest for app:429 not found: manifest unknown", "image_not_found"),
    ("waiting", "ErrImagePull", "reading manifest 429 in docker.io/acme/app: manifest unknown", "image_not_found"),
    (
        "waiting",
        "ErrImagePull",
        "dial tcp: lookup denied.example.com on 10.0.0.10:53: no such host",
        "registry_not_found",
    ),
    (
        "waiting",
        "ErrImagePull",
        "unexpected status from HEAD request to https://ghcr.io/v2/acme/app/manifests/1: 403 Forbidden",
        "image_pull_denied",
    ),
    (
        "waiting",
        "ErrImagePull",
        "unexpected status code https://registry-1.docker.io/v2/library/python/manifests/3: 429 Too Many Requests",
        "image_pull_throttled",
    ),
    (
        "waiting",
        "ErrImagePull",
        'denied: Permission "artifactregistry.repositories.downloadArtifacts" denied on resource',
        "image_pull_denied",
    ),
    ("waiting", "InvalidImageName", "couldn't parse image name", "image_name_invalid"),
    ("waiting", "ErrImageNeverPull", "image is not present with pull policy of Never", "image_never_pulled"),
    ("waiting", "CreateContainerConfigError", 'configmap "gke-sandbox-b5a2661855" not found', "config_map_late"),
    (
        "waiting",
        "CreateContainerConfigError",
        "failed to sync configmap cache: timed out waiting for the condition",
        "config_map_late",
    ),
    ("waiting", "CreateContainerConfigError", 'object "ns"/"gke-sandbox-b5" not registered', "config_map_late"),
    ("waiting", "CreateContainerConfigError", CONFIG_MAP_REFUSED, "config_map_late"),
    ("waiting", "CreateContainerConfigError", 'secret "token" not found', "container_config_wrong"),
    (
        "waiting",
        "CreateContainerConfigError",
        "couldn't find key code_0 in ConfigMap ns/gke-sandbox-b5a2661855",
        "container_config_wrong",
    ),
    (
        "waiting",
        "CreateContainerConfigError",
        "container has runAsNonRoot and image will run as root",
        "container_config_wrong",
    ),
    (
        "waiting",
        "CreateContainerConfigError",
        "container's runAsUser breaks non-root policy",
        "container_config_wrong",
    ),
    (
        "waiting",
        "CreateContainerConfigError",
        "services have not yet been read at least once, cannot construct envvars",
        "container_config_late",
    ),
    (
        "waiting",
        "CreateContainerConfigError",
        "failed to sync secret cache: timed out waiting for the condition",
        "container_config_late",
    ),
    ("waiting", "CreateContainerError", "context deadline exceeded", "container_start_retried"),
    ("waiting", "SomethingNew", "", "container_waiting"),
    ("init container", "failed", 'init container "istio-init" ended with exit code 3', "init_container_failed"),
    ("init container", "retried", 'sidecar "istio-proxy" ended with exit code 1', "init_container_retried"),
    ("start", "StartError", 'exec: "python3": executable file not found in $PATH', "python_missing"),
    (
        "start",
        "StartError",
        "OCI runtime create failed: mkdir /app/data: read-only file system: cannot set up cwd",
        "bad_working_directory",
    ),
    (
        "start",
        "StartError",
        "OCI runtime create failed: mkdir /run/containerd/runsc/x: no space left on device",
        "node_disk_full",
    ),
    ("start", "StartError", 'exec: "/usr/bin/python3": permission denied', "permission_denied"),
    ("start", "StartError", "the runtime is on fire", "container_not_started"),
    ("scheduling", "Unschedulable", "0/3 nodes are available: 3 Insufficient cpu.", "not_enough_cpu"),
    ("scheduling", "Unschedulable", "0/3 nodes are available: 3 Insufficient memory.", "not_enough_memory"),
    ("scheduling", "Unschedulable", "0/3 nodes are available: 3 Too many pods.", "not_enough_room"),
    (
        "scheduling",
        "Unschedulable",
        "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
        "no_gvisor_node",
    ),
    ("scheduling", "Unschedulable", "no nodes available to schedule pods", "unschedulable"),
    ("scheduling", "Unschedulable", "0/1 nodes are available: 1 node(s) were unschedulable.", "node_cordoned"),
    ("scheduling", "Unschedulable", TAINTED.format("node.kubernetes.io/unschedulable: "), "node_cordoned"),
    ("scheduling", "Unschedulable", TAINTED.format("ToBeDeletedByClusterAutoscaler: 1764236"), "node_cordoned"),
    ("scheduling", "Unschedulable", TAINTED.format("node.kubernetes.io/disk-pressure: "), "node_pressure"),
    ("scheduling", "Unschedulable", TAINTED.format("node.kubernetes.io/memory-pressure: "), "node_pressure"),
    ("scheduling", "Unschedulable", TAINTED.format("node.kubernetes.io/pid-pressure: "), "node_pressure"),
    ("scheduling", "Unschedulable", TAINTED.format("node.kubernetes.io/not-ready: "), "node_not_ready"),
    ("scheduling", "Unschedulable", TAINTED.format("node.kubernetes.io/unreachable: "), "node_not_ready"),
    ("scheduling", "Unschedulable", TAINTED.format("node.kubernetes.io/network-unavailable: "), "node_not_ready"),
    (
        "scheduling",
        "Unschedulable",
        TAINTED.format("node.cloudprovider.kubernetes.io/uninitialized: true"),
        "node_not_ready",
    ),
    ("scheduling", "Unschedulable", TAINTED.format("team: x"), "node_tainted"),
    # Since Kubernetes 1.34.2 the message does not name the taint: https://github.com/kubernetes/kubernetes/pull/135023
    (
        "scheduling",
        "Unschedulable",
        "0/2 nodes are available: 2 node(s) had untolerated taint(s). no new claims to deallocate, preemption: "
        "0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
        "node_tainted",
    ),
    ("pod event", "TriggeredScaleUp", "pod triggered scale-up: [{pool-1 0->1 (max: 3)}]", "node_is_being_made"),
    ("pod event", "FailedScaleUp", "Node scale up in zones us-a failed: GCE quota exceeded", "scale_up_failed"),
    (
        "pod event",
        "NotTriggerScaleUp",
        "pod didn't trigger scale-up: 1 in backoff after failed scale-up",
        "scale_up_failed",
    ),
    (
        "pod event",
        "NotTriggerScaleUp",
        "pod didn't trigger scale-up: 1 max node group size reached, 2 node(s) had untolerated taint",
        "node_pools_full",
    ),
    (
        "pod event",
        "NotTriggerScaleUp",
        "pod didn't trigger scale-up: 2 node(s) didn't match Pod's node affinity/selector",
        "cannot_scale_up",
    ),
    (
        "pod event",
        "FailedCreatePodSandBox",
        'rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for "runsc" is configured',
        "runtime_handler_missing",
    ),
    ("pod event", "FailedCreatePodSandBox", 'RuntimeHandler "runsc" not supported', "runtime_handler_missing"),
    (
        "pod event",
        "FailedCreatePodSandBox",
        "failed to find runtime handler runsc from runtime list map[runc:0xc0004]",
        "runtime_handler_missing",
    ),
    (
        "pod event",
        "FailedCreatePodSandBox",
        'failed to start shim: failed to resolve runtime path: runtime "io.containerd.runsc.v1" binary not '
        'installed "containerd-shim-runsc-v1": file does not exist: unknown',
        "runtime_handler_missing",
    ),
    (
        "pod event",
        "FailedCreatePodSandBox",
        'failed to create shim task: OCI runtime create failed: exec: "runsc": executable file not found in $PATH',
        "runtime_handler_missing",
    ),
    ("pod event", "FailedCreatePodSandBox", "failed to setup network for sandbox", "pod_sandbox_failed"),
    (
        "pod event",
        "FailedMount",
        'MountVolume.SetUp failed for volume "app": configmap "x" not found',
        "config_map_late",
    ),
    (
        "pod event",
        "FailedMount",
        'MountVolume.SetUp failed for volume "app" : failed to sync configmap cache: timed out waiting for it',
        "config_map_late",
    ),
    (
        "pod event",
        "FailedMount",
        'MountVolume.SetUp failed for volume "app" : object "ns"/"gke-sandbox-b5" not registered',
        "config_map_late",
    ),
    (
        "pod event",
        "FailedMount",
        f'MountVolume.SetUp failed for volume "app" : {CONFIG_MAP_REFUSED}',
        "config_map_late",
    ),
    (
        "pod event",
        "FailedMount",
        'MountVolume.SetUp failed for volume "tmp": no space left on device',
        "mount_failed",
    ),
    (
        "admission",
        "FailedCreate",
        'pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false',
        "pod_security",
    ),
    (
        "admission",
        "FailedCreate",
        'pods "x" is forbidden: exceeded quota: pods, requested: pods=1, used: pods=5, limited: pods=5',
        "quota_exceeded",
    ),
    (
        "admission",
        "FailedCreate",
        'pods "x" is forbidden: exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0',
        "quota_too_small",
    ),
    (
        "admission",
        "FailedCreate",
        'pods "x" is forbidden: exceeded quota: q, requested: limits.cpu=500m,requests.memory=256Mi, '
        "used: limits.cpu=1,requests.memory=0, limited: limits.cpu=1,requests.memory=128Mi",
        "quota_too_small",
    ),
    (
        "admission",
        "FailedCreate",
        'pods "x" is forbidden: exceeded quota: q, requested: requests.memory=256Mi, used: requests.memory=1Gi, '
        "limited: requests.memory=1G",
        "quota_exceeded",
    ),
    (
        "admission",
        "Forbidden",
        'jobs.batch "x" is forbidden: exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=9, '
        "limited: count/jobs.batch=9",
        "quota_exceeded",
    ),
    (
        "admission",
        "Forbidden",
        'jobs.batch "x" is forbidden: status unknown for quota: q, resources: count/jobs.batch',
        "quota_not_counted",
    ),
    (
        "admission",
        "FailedCreate",
        'pods "x" is forbidden: failed quota: gpu: must specify requests.nvidia.com/gpu for: code-runner',
        "quota_wants_more",
    ),
    (
        "admission",
        "FailedCreate",
        'pods "x" is forbidden: pod rejected: RuntimeClass "gvisor" not found',
        "runtime_class_missing",
    ),
    (
        "admission",
        "FailedCreate",
        'pods "x" is forbidden: maximum cpu usage per Container is 100m, but limit is 500m',
        "limit_range",
    ),
    (
        "admission",
        "FailedCreate",
        'admission webhook "policy.example.com" denied the request: no tolerations here',
        "webhook_denied",
    ),
    (
        "admission",
        "Invalid",
        "jobs.batch \"x\" is forbidden: ValidatingAdmissionPolicy 'limits' with binding 'all' denied request: "
        "failed expression: object.spec.backoffLimit > 0",
        "webhook_denied",
    ),
    (
        "admission",
        "InternalError",
        'Internal error occurred: failed calling webhook "validate.example.com": failed to call webhook: Post '
        '"https://hook.example.svc:443/validate?timeout=10s": dial tcp 10.0.0.9:443: connect: connection refused',
        "webhook_failed",
    ),
    (
        "admission",
        "Forbidden",
        'configmaps "x" is forbidden: unable to create new content in namespace n because it is being terminated',
        "namespace_terminating",
    ),
    (
        "admission",
        "Forbidden",
        'jobs.batch "x" is forbidden: not yet ready to handle request',
        "server_starting",
    ),
    (
        "admission",
        "FailedCreate",
        'pods "x" is forbidden: error looking up service account default/sa: serviceaccount "sa" not found',
        "service_account_missing",
    ),
    (
        "admission",
        "FailedCreate",
        'pods "x" is forbidden: no PriorityClass with name high was found',
        "priority_class_missing",
    ),
    ("admission", "Suspended", "Job suspended", "job_suspended"),
    ("admission", "FailedCreate", "Internal error occurred: something", "pod_refused"),
    ("terminated", "OOMKilled", "", "out_of_memory"),
    ("terminated", "ContainerStatusUnknown", "The container could not be located", "node_lost"),
    ("terminated", "Error", "the container's first process was killed with signal 9", "killed_by_signal"),
    ("pod status", "Evicted", 'Usage of EmptyDir volume "tmp" exceeds the limit "16Mi".', "storage_exceeded"),
    (
        "pod status",
        "Evicted",
        "Pod ephemeral local storage usage exceeds the total limit of containers",
        "storage_exceeded",
    ),
    (
        "pod status",
        "Evicted",
        'Container code-runner exceeded its local ephemeral storage limit "256Mi".',
        "storage_exceeded",
    ),
    ("pod status", "Evicted", "Pod was rejected: The node had condition: [DiskPressure].", "node_pressure"),
    ("pod status", "Evicted", "The node had condition: [MemoryPressure DiskPressure].", "node_pressure"),
    ("pod status", "Evicted", "The node was low on resource: memory.", "evicted"),
    (
        "pod status",
        "Evicted",
        "The node was low on resource: ephemeral-storage. Container code-runner was using 90Mi, which exceeds its "
        "request of 64Mi.",
        "evicted",
    ),
    ("pod status", "PreemptionByScheduler", "default-scheduler: preempting", "preempted"),
    ("pod status", "NodeLost", "Node which was running pod is unresponsive", "node_lost"),
    ("pod status", "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", "node_lost"),
    ("pod status", "Terminated", "Pod was terminated in response to imminent node shutdown.", "node_lost"),
    ("pod status", "JobSuspended", "Job suspended", "suspended"),
    ("pod status", "DeadlineExceeded", "Job was active longer than specified deadline", "job_deadline"),
    ("pod status", "OutOfcpu", "Pod was rejected: Node didn't have enough resource: cpu", "node_refused"),
    ("pod status", "NodeAffinity", "Pod was rejected: Predicate NodeAffinity failed", "node_refused"),
    ("pod status", "TaintToleration", "Pod was rejected: Predicate TaintToleration failed", "node_refused"),
    ("pod status", "SysctlForbidden", "forbidden sysctl", "node_refused"),
    ("pod status", "Deleted", "the pod was deleted by another client", "deleted"),
    ("pod status", "ReasonOfTheFuture", "the pod has failed for a reason that is not known yet", "pod_failed"),
]
