//! The rows: keys and names with a meaning, each with where that is said.

use super::{Key, Name, Row};

const fn row<T>(what: T, meaning: &'static str, source: &'static str) -> Row<T> {
    Row { what, meaning, source }
}

/// Labels and annotations with a meaning. A whole domain each, because what is harmless in it today may be obeyed tomorrow.
/// Not here: keys that only the Secret's own workload reacts to, such as those of Reloader, or that only leave it out of
/// something, such as Velero's.
pub const KEYS: &[Row<Key>] = &[
    // Kubernetes.
    row(
        Key::Domain("kubernetes.io"),
        "is Kubernetes' own: it binds ServiceAccounts, bootstrap tokens, apply sets and ingress classes, and tells GitOps tools what is theirs",
        "https://kubernetes.io/docs/reference/labels-annotations-taints/",
    ),
    row(
        Key::Domain("k8s.io"),
        "is Kubernetes' own: its projects track and replace what carries it",
        "https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set",
    ),
    row(
        Key::Domain("x-k8s.io"),
        "makes Cluster API take the Secret for a cluster's keys, and HNC copy it into other namespaces",
        "https://cluster-api.sigs.k8s.io/reference/api/labels-and-annotations",
    ),
    // What deploys: it obeys what it finds, and prunes what it takes for its own.
    row(
        Key::With("owner", "helm"),
        "makes Helm take the Secret for a release",
        "https://github.com/helm/helm/blob/main/pkg/storage/driver/secrets.go",
    ),
    row(
        Key::With("owner", "tiller"),
        "makes Helm 2 take the Secret for a release",
        "https://github.com/helm/helm-2to3/blob/main/README.md",
    ),
    row(
        Key::Domain("helm.sh"),
        "makes Helm take the Secret for a part of a release",
        "https://helm.sh/docs/chart_best_practices/labels/",
    ),
    row(
        Key::Domain("argoproj.io"),
        "makes Argo CD take the Secret for a cluster or a repository, or for a part of an application",
        "https://argo-cd.readthedocs.io/en/stable/operator-manual/declarative-setup/",
    ),
    row(
        Key::Domain("fluxcd.io"),
        "makes Flux take the Secret for a part of what it applies, and prune it",
        "https://fluxcd.io/flux/components/kustomize/kustomizations/",
    ),
    row(
        Key::Domain("cattle.io"),
        "makes Rancher and Fleet copy the Secret into other namespaces, or prune it",
        "https://ranchermanager.docs.rancher.com/how-to-guides/new-user-guides/kubernetes-resources-setup/secrets",
    ),
    row(
        Key::Domain("k14s.io"),
        "makes kapp take the Secret for a part of an application, and delete it",
        "https://carvel.dev/kapp/docs/latest/apply/",
    ),
    row(
        Key::Domain("kluctl.io"),
        "makes Kluctl take the Secret for a part of a deployment, and prune it",
        "https://kluctl.io/docs/kluctl/deployments/deployment-yml/",
    ),
    row(
        Key::Domain("gke.io"),
        "makes Config Sync take the Secret for its own",
        "https://cloud.google.com/kubernetes-engine/config-sync/docs/reference/label-annotations",
    ),
    row(
        Key::Domain("timoni.sh"),
        "makes Timoni take the Secret for an instance",
        "https://timoni.sh/concepts/",
    ),
    row(
        Key::Begin("tfstate"),
        "makes Terraform take the Secret for a state",
        "https://developer.hashicorp.com/terraform/language/backend/kubernetes",
    ),
    row(
        Key::Domain("oam.dev"),
        "makes KubeVela take the Secret for access to a cluster",
        "https://github.com/oam-dev/cluster-gateway",
    ),
    row(
        Key::Domain("crossplane.io"),
        "makes Crossplane take the Secret for a part of a composition",
        "https://docs.crossplane.io/latest/concepts/composite-resources/",
    ),
    // What joins clusters: it takes a Secret for access to one.
    row(
        Key::Domain("istio"),
        "makes Istio take the Secret for access to a cluster",
        "https://istio.io/latest/docs/reference/commands/istioctl/#istioctl-create-remote-secret",
    ),
    row(
        Key::Domain("istio.io"),
        "makes Istio take the Secret for access to a cluster",
        "https://istio.io/latest/docs/reference/commands/istioctl/#istioctl-create-remote-secret",
    ),
    row(
        Key::Domain("admiral"),
        "makes Admiral take the Secret for access to a cluster",
        "https://github.com/istio-ecosystem/admiral/blob/master/docs/Examples.md",
    ),
    row(
        Key::Domain("linkerd.io"),
        "makes Linkerd take the Secret for access to a cluster",
        "https://linkerd.io/2/tasks/multicluster/",
    ),
    row(
        Key::Domain("skupper.io"),
        "makes Skupper connect to another site, or fill the Secret with access to this one",
        "https://skupper.io/docs/declarative/tutorial.html",
    ),
    row(
        Key::Domain("open-cluster-management.io"),
        "makes Open Cluster Management take the Secret for access to a cluster, or spread it",
        "https://open-cluster-management.io/docs/",
    ),
    row(
        Key::Domain("karmada.io"),
        "makes Karmada spread the Secret over clusters",
        "https://karmada.io/docs/userguide/scheduling/propagation-policy/",
    ),
    row(
        Key::Domain("liqo.io"),
        "makes Liqo take the Secret for access to a cluster",
        "https://docs.liqo.io/",
    ),
    row(
        Key::Domain("gardener.cloud"),
        "makes Gardener take the Secret for one of its own",
        "https://gardener.cloud/docs/gardener/secrets_management/",
    ),
    row(
        Key::Domain("openshift.io"),
        "makes OpenShift fill, sync or obey the Secret",
        "https://docs.openshift.com/container-platform/latest/security/certificates/service-serving-certificate.html",
    ),
    // What keeps secrets: it decrypts with, overwrites, or copies what it finds.
    row(
        Key::Domain("bitnami.com"),
        "makes Sealed Secrets decrypt with the Secret, or overwrite it",
        "https://github.com/bitnami-labs/sealed-secrets/blob/main/README.md",
    ),
    row(
        Key::Domain("external-secrets.io"),
        "makes External Secrets take the Secret for one of its own",
        "https://external-secrets.io/latest/guides/ownership-deletion-policy/",
    ),
    row(
        Key::Domain("cert-manager.io"),
        "makes cert-manager put the Secret's authority into webhooks, or overwrite it",
        "https://cert-manager.io/docs/concepts/ca-injector/",
    ),
    row(
        Key::Domain("hashicorp.com"),
        "makes the operators of Vault and Consul take the Secret for one of their own",
        "https://developer.hashicorp.com/vault/docs/deploy/kubernetes/vso",
    ),
    row(
        Key::Domain("banzaicloud.io"),
        "makes Bank-Vaults replace the Secret's content by what it may read in Vault",
        "https://bank-vaults.dev/docs/mutating-webhook/annotations/",
    ),
    row(
        Key::Domain("bank-vaults.io"),
        "makes Bank-Vaults replace the Secret's content by what it may read in Vault",
        "https://bank-vaults.dev/docs/mutating-webhook/annotations/",
    ),
    row(
        Key::Domain("conjur.org"),
        "makes Conjur's provider overwrite the Secret",
        "https://github.com/cyberark/secrets-provider-for-k8s",
    ),
    row(
        Key::Domain("carvel.dev"),
        "makes secretgen-controller fill the Secret with pull secrets of other namespaces",
        "https://github.com/carvel-dev/secretgen-controller/blob/develop/docs/secret-export.md",
    ),
    row(
        Key::Domain("mittwald.de"),
        "makes the replicator copy the Secret into, or from, other namespaces",
        "https://github.com/mittwald/kubernetes-replicator/blob/master/README.md",
    ),
    row(
        Key::Domain("olli.com"),
        "makes Olli's replicator copy the Secret into, or from, other namespaces",
        "https://github.com/olli-ai/k8s-replicator/blob/master/README.md",
    ),
    row(
        Key::Domain("emberstack.com"),
        "makes Reflector copy the Secret into, or from, other namespaces",
        "https://github.com/emberstack/kubernetes-reflector/blob/main/README.md",
    ),
    row(
        Key::Domain("appscode.com"),
        "makes Config Syncer copy the Secret into other namespaces and clusters",
        "https://github.com/kubeops/config-syncer",
    ),
    row(
        Key::Domain("clustersecret.io"),
        "makes ClusterSecret take the Secret for one of its copies",
        "https://clustersecret.io/",
    ),
    row(
        Key::Domain("synator"),
        "makes Synator copy the Secret into other namespaces",
        "https://github.com/TheYkk/synator",
    ),
    row(
        Key::Domain("kyverno.io"),
        "makes Kyverno take the Secret for one that it generated, or delete it",
        "https://kyverno.io/docs/policy-types/cluster-policy/generate/",
    ),
    row(
        Key::Domain("1password.io"),
        "makes 1Password's operator write an item of its vaults into the Secret",
        "https://github.com/1Password/onepassword-operator/blob/main/pkg/onepassword/secret_update_handler.go",
    ),
    // What takes a Secret for credentials or configuration of its own.
    row(
        Key::Domain("kuadrant.io"),
        "makes Authorino accept the Secret as an API key",
        "https://github.com/Kuadrant/authorino/blob/main/docs/user-guides/api-key-authentication.md",
    ),
    row(
        Key::Domain("akuity.io"),
        "makes Kargo take the Secret for access to a repository",
        "https://docs.kargo.io/user-guide/security/managing-credentials/",
    ),
    row(
        Key::Domain("loft.sh"),
        "makes the vCluster platform take the Secret for a project's, and copy it",
        "https://www.vcluster.com/docs/platform/",
    ),
    row(
        Key::Domain("mongodb.com"),
        "makes the Atlas operator take the Secret for its credentials",
        "https://www.mongodb.com/docs/atlas/operator/current/ak8so-configure-access-to-atlas/",
    ),
    row(
        Key::Domain("cnpg.io"),
        "makes CloudNativePG take the Secret for one of a database, and load it",
        "https://cloudnative-pg.io/documentation/current/labels_annotations/",
    ),
    row(
        Key::Begin("olm."),
        "makes the Operator Lifecycle Manager take the Secret for its own",
        "https://olm.operatorframework.io/docs/",
    ),
    row(
        Key::Begin("loki_"),
        "makes Loki load the Secret as rules",
        "https://github.com/grafana/loki/blob/main/production/helm/loki/values.yaml",
    ),
    row(
        Key::Begin("grafana_"),
        "makes Grafana's sidecar load the Secret as data source, dashboard or alert",
        "https://github.com/grafana/helm-charts/blob/main/charts/grafana/README.md",
    ),
    row(
        Key::Domain("elastic.co"),
        "makes ECK take the Secret for a user of Elasticsearch with its roles",
        "https://github.com/elastic/cloud-on-k8s/blob/main/pkg/controller/association/reconciler.go",
    ),
    row(
        Key::Domain("strimzi.io"),
        "makes Strimzi take the Secret for an authority or a user of Kafka",
        "https://strimzi.io/docs/operators/latest/deploying",
    ),
    row(
        Key::Domain("crunchydata.com"),
        "makes PGO take the Secret for the password of a database user",
        "https://access.crunchydata.com/documentation/postgres-operator/latest/tutorials/basic-setup/user-management",
    ),
    row(
        Key::Domain("konghq.com"),
        "makes Kong take the Secret for a consumer's credential or an authority",
        "https://developer.konghq.com/kubernetes-ingress-controller/reference/annotations/",
    ),
    row(
        Key::Domain("jenkins.io"),
        "makes Jenkins take the Secret for a credential of its pipelines",
        "https://jenkinsci.github.io/kubernetes-credentials-provider-plugin/",
    ),
    row(
        Key::Domain("tekton.dev"),
        "makes Tekton send the Secret's password to the host that it names",
        "https://tekton.dev/docs/pipelines/auth/",
    ),
];

/// Names that others read in every namespace, whatever type and labels the Secret has, or that are somebody's root of trust.
pub const NAMES: &[Row<Name>] = &[
    row(
        Name::Begin("sh.helm.release."),
        "is read by Helm as a release",
        "https://github.com/helm/helm/blob/main/pkg/storage/driver/secrets.go",
    ),
    row(
        Name::Begin("tfstate-"),
        "is read by Terraform as a state",
        "https://github.com/hashicorp/terraform/blob/main/internal/backend/remote-state/kubernetes/client.go",
    ),
    row(Name::Begin("timoni."), "is read by Timoni as an instance", "https://timoni.sh/concepts/"),
    row(
        Name::Begin("bootstrap-token-"),
        "is a token that nodes join with",
        "https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/",
    ),
    row(
        Name::End("-kubeconfig"),
        "is read by Cluster API as access to a cluster",
        "https://github.com/kubernetes-sigs/cluster-api/blob/main/util/secret/secret.go",
    ),
    row(
        Name::End("-ca"),
        "is read by Cluster API as the authority of a cluster",
        "https://github.com/kubernetes-sigs/cluster-api/blob/main/util/secret/consts.go",
    ),
    row(
        Name::End("-etcd"),
        "is read by Cluster API as the authority of a cluster's etcd",
        "https://github.com/kubernetes-sigs/cluster-api/blob/main/util/secret/consts.go",
    ),
    row(
        Name::End("-sa"),
        "is read by Cluster API as the key that signs a cluster's ServiceAccount tokens",
        "https://github.com/kubernetes-sigs/cluster-api/blob/main/util/secret/consts.go",
    ),
    row(
        Name::End("-proxy"),
        "is read by Cluster API as the authority of a cluster's front proxy",
        "https://github.com/kubernetes-sigs/cluster-api/blob/main/util/secret/consts.go",
    ),
    row(
        Name::End(".credentials.postgresql.acid.zalan.do"),
        "is read by the Postgres operator as the password of a database user",
        "https://postgres-operator.readthedocs.io/en/latest/user/",
    ),
    row(
        Name::Is("argocd-secret"),
        "is read by Argo CD as its signing key and passwords",
        "https://argo-cd.readthedocs.io/en/stable/operator-manual/declarative-setup/",
    ),
    row(
        Name::Is("cacerts"),
        "is read by Istio as the authority of the mesh",
        "https://istio.io/latest/docs/tasks/security/cert-management/plugin-ca-cert/",
    ),
    row(
        Name::Is("istio-ca-secret"),
        "is read by Istio as the authority of the mesh",
        "https://istio.io/latest/docs/tasks/security/cert-management/plugin-ca-cert/",
    ),
];
