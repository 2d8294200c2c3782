use super::*;

fn refused(key: &str, value: &str) -> bool {
    let pairs = [(key.to_owned(), value.to_owned())];
    Allowed::default().check_keys("labels", pairs.iter().map(|(key, value)| (key, value))).is_err()
}

#[test]
fn keys_that_others_act_on_are_refused_in_any_case() {
    for key in [
        "argocd.argoproj.io/secret-type",
        "ARGOCD.argoproj.io/secret-type",
        "helm.sh/chart",
        "meta.helm.sh/release-name",
        "sealedsecrets.bitnami.com/sealed-secrets-key",
        "cluster.x-k8s.io/cluster-name",
        "kubernetes.io/service-account.name",
        "app.kubernetes.io/instance",
        "istio/multiCluster",
        "grafana_datasource",
        "tfstateSecretSuffix",
        "replicator.v1.mittwald.de/replicate-to",
        "common.k8s.elastic.co/type",
    ] {
        assert!(refused(key, "true"), "{key}");
    }
    for owner in ["helm", "Helm", "HELM", "tiller"] {
        assert!(refused("owner", owner) && refused("OWNER", owner), "{owner}");
    }
}

#[test]
fn keys_of_ones_own_are_free() {
    for key in [
        "team",
        "owner",
        "helm",
        "app.kubernetes.io/name",
        "example.com/helm.sh",
        "nothelm.sh/chart",
        "reloader.stakater.com/match",
        "velero.io/exclude-from-backup",
    ] {
        assert!(!refused(key, "payments"), "{key}");
    }
}

#[test]
fn names_and_types_that_others_act_on_are_refused() {
    let nothing = Allowed::default();
    for name in ["sh.helm.release.v1.shop.v3", "tfstate-default-prod", "shop-kubeconfig", "cacerts"] {
        assert!(nothing.check_name(name).is_err(), "{name}");
    }
    for name in ["orders", "helm", "my-cacerts", "orders-token"] {
        assert_eq!(nothing.check_name(name), Ok(()), "{name}");
    }
    for kind in ["helm.sh/release.v1", "kubernetes.io/tls", "opaque", "example.com/mine", ""] {
        assert!(nothing.check_type(kind).is_err(), "{kind}");
    }
    TYPES.iter().for_each(|kind| assert_eq!(nothing.check_type(kind), Ok(())));
}

#[test]
fn an_installation_may_allow_more_but_not_everything() {
    let allowed = Allowed {
        types: vec!["example.com/mine".into(), "helm.sh/release.v1".into()],
        names: vec!["shop-kubeconfig".into()],
        keys: vec!["argocd.argoproj.io/secret-type".into()],
    };
    assert_eq!(allowed.check_type("example.com/mine"), Ok(()));
    assert!(matches!(allowed.check_type("helm.sh/release.v1"), Err(Refusal::NeverType(_))));
    assert_eq!(allowed.check_name("shop-kubeconfig"), Ok(()));
    assert!(allowed.check_name("orders-kubeconfig").is_err());
    let pair = |key: &str| (key.to_owned(), "x".to_owned());
    let check = |key: &str| allowed.check_keys("labels", [pair(key)].iter().map(|(key, value)| (key, value)));
    assert_eq!(check("argocd.argoproj.io/secret-type"), Ok(()));
    assert!(check("argocd.argoproj.io/instance").is_err());
}

/// The rules of the definition are put together from these: nothing in them may end a literal.
#[test]
fn every_row_is_plain_and_in_lower_case_and_has_its_source() {
    let plain = |text: &str| !text.is_empty() && !text.contains(['\'', '\\', '"', '\n', '/']);
    for row in KEYS {
        let texts: &[&str] = match &row.what {
            Key::Domain(text) | Key::Begin(text) => &[text],
            Key::With(key, value) => &[key, value],
        };
        assert!(texts.iter().all(|text| plain(text) && *text == text.to_lowercase()), "{row:?}");
        assert!(row.source.starts_with("https://") && !row.meaning.ends_with('.'), "{row:?}");
    }
    for row in NAMES {
        let (Name::Is(text) | Name::Begin(text) | Name::End(text)) = row.what;
        assert!(plain(text) && row.source.starts_with("https://"), "{row:?}");
    }
}
