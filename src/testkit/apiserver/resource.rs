//! Which resources the server serves, and how each differs from the rest.

/// How server-side apply treats the items of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// The list is one value.
    Atomic,
    /// Scalars, each owned by itself (`x-kubernetes-list-type: set`).
    Set,
    /// Objects told apart by one key (`x-kubernetes-list-type: map`).
    Map {
        /// The field that tells items apart.
        key: String,
        /// Whether an item is one value (`x-kubernetes-map-type: atomic`).
        atomic_items: bool,
    },
}

/// One served resource.
#[derive(Clone, Debug)]
pub struct ResourceType {
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural name, as in URLs.
    pub plural: String,
    /// Kind.
    pub kind: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether there is a status subresource.
    pub has_status: bool,
    /// Whether `metadata.generation` counts changes of the desired state (custom resources).
    pub generation: bool,
    /// Whether PUT of a missing object creates it.
    pub create_on_update: bool,
    /// Whether PUT without a resourceVersion overwrites.
    pub unconditional_update: bool,
    lists: Vec<(Vec<String>, ListKind)>,
    structs: Vec<Vec<String>>,
}

impl ResourceType {
    fn plain(group: &str, version: &str, plural: &str, kind: &str) -> Self {
        let owners = ListKind::Map { key: "uid".into(), atomic_items: true };
        Self {
            group: group.into(),
            version: version.into(),
            plural: plural.into(),
            kind: kind.into(),
            namespaced: true,
            has_status: false,
            generation: false,
            create_on_update: false,
            unconditional_update: true,
            lists: vec![
                (path("metadata.ownerReferences"), owners),
                (path("metadata.finalizers"), ListKind::Set),
            ],
            structs: vec![vec![], path("metadata")],
        }
    }

    /// A namespaced custom resource with a status subresource; `status.conditions` is a list map by `type`.
    #[must_use]
    pub fn custom(group: &str, version: &str, plural: &str, kind: &str) -> Self {
        Self {
            has_status: true,
            generation: true,
            unconditional_update: false,
            ..Self::plain(group, version, plural, kind)
        }
        .list_map("status.conditions", "type")
    }

    /// The list at `at` (dotted field names) is a list map by `key`.
    #[must_use]
    pub fn list_map(mut self, at: &str, key: &str) -> Self {
        self.lists.push((path(at), ListKind::Map { key: key.into(), atomic_items: false }));
        self
    }

    /// The object at `at` has declared fields: an applied parent is not owned apart from its children.
    #[must_use]
    pub fn declared(mut self, at: &str) -> Self {
        self.structs.push(path(at));
        self
    }

    /// Objects live outside namespaces.
    #[must_use]
    pub fn cluster_scoped(mut self) -> Self {
        self.namespaced = false;
        self
    }

    /// `group/version`, or the version alone in the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `plural.group`, as messages name it.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// How the list at these field names merges.
    pub(super) fn list_kind(&self, at: &[&str]) -> &ListKind {
        self.lists.iter().find(|(path, _)| path == at).map_or(&ListKind::Atomic, |(_, kind)| kind)
    }

    /// Whether the object at these field names has declared fields.
    pub(super) fn is_struct(&self, at: &[&str]) -> bool {
        self.structs.iter().any(|path| path == at)
    }
}

fn path(dotted: &str) -> Vec<String> {
    dotted.split('.').map(Into::into).collect()
}

/// `v1 Secret`.
#[must_use]
pub fn secrets() -> ResourceType {
    ResourceType::plain("", "v1", "secrets", "Secret")
}

/// `v1 Namespace`.
#[must_use]
pub fn namespaces() -> ResourceType {
    ResourceType { has_status: true, ..ResourceType::plain("", "v1", "namespaces", "Namespace") }
        .list_map("status.conditions", "type")
        .declared("spec")
        .declared("status")
        .cluster_scoped()
}

/// `coordination.k8s.io/v1 Lease`.
#[must_use]
pub fn leases() -> ResourceType {
    ResourceType {
        create_on_update: true,
        unconditional_update: false,
        ..ResourceType::plain("coordination.k8s.io", "v1", "leases", "Lease")
    }
    .declared("spec")
}

/// `events.k8s.io/v1 Event`.
#[must_use]
pub fn events() -> ResourceType {
    ResourceType { create_on_update: true, ..ResourceType::plain("events.k8s.io", "v1", "events", "Event") }
        .declared("regarding")
        .declared("related")
        .declared("series")
}

/// `tokenward.dev/v1alpha1 ApiToken`.
#[must_use]
pub fn apitokens() -> ResourceType {
    ResourceType::custom("tokenward.dev", "v1alpha1", "apitokens", "ApiToken")
        .list_map("status.credentials", "id")
        .declared("spec")
        .declared("spec.secret")
        .declared("spec.rotation")
        .declared("spec.expiry")
        .declared("spec.idle")
        .declared("status")
        .declared("status.owner")
        .declared("status.lastHandled")
        .declared("status.usage")
}

/// `tokenward.dev/v1alpha1 TokenUsage`.
#[must_use]
pub fn tokenusages() -> ResourceType {
    ResourceType::custom("tokenward.dev", "v1alpha1", "tokenusages", "TokenUsage")
        .list_map("status.credentials", "id")
        .list_map("status.scopes", "scope")
        .list_map("status.sources", "gate")
        .declared("spec")
        .declared("status")
        .declared("status.hourly")
}

/// What the server serves unless told otherwise.
#[must_use]
pub(super) fn standard() -> Vec<ResourceType> {
    vec![secrets(), namespaces(), leases(), events(), apitokens(), tokenusages()]
}
