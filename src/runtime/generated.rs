//! What the binary itself writes for the repository and for clusters without the chart.

use std::io::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::args::Topic;
use super::{RunError, metrics_reference, reference};
use crate::api::{self, meaning::Allowed};

/// Every CustomResourceDefinition as YAML documents, each introduced by `---`, for an installation that allows this.
pub fn crds(allowed: &Allowed) -> Result<String, RunError> {
    documents(&api::crds_allowing(allowed))
}

/// A reference as markdown.
pub fn reference(topic: Topic) -> String {
    match topic {
        Topic::Api => reference::api(&api::crds()),
        Topic::Metrics => metrics_reference::reference(),
    }
}

fn documents(definitions: &[CustomResourceDefinition]) -> Result<String, RunError> {
    let mut text = String::new();
    for definition in definitions {
        let yaml =
            serde_saphyr::to_string(definition).map_err(|error| RunError::Generate(Box::new(error)))?;
        text.push_str("---\n");
        text.push_str(&yaml);
    }
    Ok(text)
}

/// Writes to standard output. A reader that has seen enough (`| head`) is no error.
pub fn print(text: &str) -> Result<(), RunError> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|source| RunError::Io { what: "standard output cannot be written", source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_yaml_says_what_the_types_say() {
        let text = crds(&Allowed::default()).expect("generates");
        let documents: Vec<_> = text.split("---\n").skip(1).collect();
        let wanted = api::crds();
        assert_eq!(documents.len(), wanted.len());
        for (document, wanted) in documents.into_iter().zip(&wanted) {
            let read: CustomResourceDefinition = serde_saphyr::from_str(document).expect("YAML");
            assert_eq!(
                serde_json::to_value(&read).expect("JSON"),
                serde_json::to_value(wanted).expect("JSON"),
                "nothing is lost or changed on the way through YAML"
            );
        }
    }
}
