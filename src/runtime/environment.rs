//! What a process finds out about itself: its name, and its namespace.

use super::entropy::{SystemEntropy, suffix};
use crate::domain::ports::EntropyError;
use crate::platform::reviews;

/// Where Kubernetes mounts a pod's own token.
const OWN_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// The name of this process: as given, or the pod's, or the host's with random characters. A pod's name is taken as it is:
/// when its container restarts, it recognises its own Lease and goes on at once. Anywhere else, two processes on one
/// machine have to differ.
pub fn identity(given: Option<&str>) -> Result<String, EntropyError> {
    let given = given.map(str::to_owned).or_else(|| variable("POD_NAME")).filter(|name| !name.is_empty());
    if let Some(name) = given {
        return Ok(name);
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| variable("HOSTNAME"));
    let host = host.map(|host| host.trim().to_owned()).filter(|host| !host.is_empty());
    Ok(format!("{}-{}", host.as_deref().unwrap_or("tokenward"), suffix(&SystemEntropy)?))
}

/// The namespace of the Lease: as given, or the pod's, or the client's.
pub fn lease_namespace(given: Option<&str>, client: &kube::Client) -> String {
    given
        .map(str::to_owned)
        .or_else(|| variable("POD_NAMESPACE"))
        .unwrap_or_else(|| client.default_namespace().to_owned())
}

/// Who issues this cluster's ServiceAccount tokens, as the pod's own says; `None` outside of one.
pub fn issuer() -> Option<String> {
    reviews::issuer(&std::fs::read_to_string(OWN_TOKEN).ok()?)
}

/// An environment variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}
