//! What may be stored: access, namespaces, quotas, names, and the hooks of tests.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::request::RequestInfo;
use super::resource::ResourceType;
use super::status::{ApiError, Cause};
use super::store::{State, owner_references};

/// Judges a new object against the old one; the messages become causes of a 422.
pub type Validator = Arc<dyn Fn(&Value, Option<&Value>) -> Result<(), Vec<String>> + Send + Sync>;

/// Judges a request; the message becomes a 403.
pub type Authorizer = Arc<dyn Fn(&RequestInfo) -> Result<(), String> + Send + Sync>;

/// Changes an object that is about to be written, as a mutating webhook does.
pub type Mutator = Arc<dyn Fn(&mut Value) + Send + Sync>;

/// The judges that a test installs.
#[derive(Default)]
pub(super) struct Hooks {
    pub(super) validators: HashMap<usize, Validator>,
    pub(super) authorizer: Option<Authorizer>,
    pub(super) mutators: HashMap<usize, Mutator>,
    /// The most objects of a table in a namespace.
    pub(super) quotas: HashMap<(String, usize), usize>,
}

impl State {
    pub(super) fn authorize(&self, info: &RequestInfo, res: &ResourceType) -> Result<(), ApiError> {
        let Some(authorizer) = &self.hooks.authorizer else { return Ok(()) };
        authorizer(info)
            .map_err(|why| ApiError::forbidden(res, info.name.as_deref().unwrap_or_default(), &why))
    }

    pub(super) fn mutate(&self, table: usize, object: &mut Value) {
        if let Some(mutator) = self.hooks.mutators.get(&table) {
            mutator(object);
        }
    }

    /// New objects need a namespace that exists and stays.
    pub(super) fn admit_namespace(&self, res: &ResourceType, ns: &str, name: &str) -> Result<(), ApiError> {
        if !self.config.require_namespaces {
            return Ok(());
        }
        let Some(table) = self.table_named("namespaces").map(|t| &self.tables[t]) else { return Ok(()) };
        let Some(namespace) = table.objects.get(ns) else { return Err(ApiError::not_found(&table.res, ns)) };
        if namespace.value["metadata"].get("deletionTimestamp").is_some() {
            return Err(ApiError::namespace_terminating(res, name, ns));
        }
        Ok(())
    }

    pub(super) fn admit_quota(&self, table: usize, ns: &str, name: &str) -> Result<(), ApiError> {
        let Some(&most) = self.hooks.quotas.get(&(ns.to_owned(), table)) else { return Ok(()) };
        let res = &self.tables[table].res;
        let used = self.tables[table].range(&format!("{ns}/")).count();
        if used < most {
            return Ok(());
        }
        let what =
            if res.group.is_empty() { res.plural.clone() } else { format!("count/{}", res.qualified()) };
        let why = format!(
            "exceeded quota: quota, requested: {what}=1, used: {what}={used}, limited: {what}={most}"
        );
        Err(ApiError::forbidden(res, name, &why))
    }

    /// The last word before an object is stored.
    pub(super) fn validate(&self, table: usize, new: &Value, old: Option<&Value>) -> Result<(), ApiError> {
        let res = &self.tables[table].res;
        let name = new["metadata"]["name"].as_str().unwrap_or_default();
        let mut causes = Vec::new();
        if old.is_none() && !is_subdomain(name) {
            let why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                       and must start and end with an alphanumeric character";
            causes.push(Cause::value_of("metadata.name", &format!("\"{name}\""), why));
        }
        let controllers = owner_references(new).iter().filter(|owner| owner["controller"] == true).count();
        if controllers > 1 {
            let why = "Only one reference can have Controller set to true";
            causes.push(Cause::value_of("metadata.ownerReferences", "[]", why));
        }
        if res.group.is_empty() && res.kind == "Secret" {
            super::secret::validate(new, old, &mut causes);
        }
        if causes.is_empty()
            && let Some(validator) = self.hooks.validators.get(&table)
            && let Err(messages) = validator(new, old)
        {
            causes.extend(messages.into_iter().map(Cause::rule));
        }
        if causes.is_empty() { Ok(()) } else { Err(ApiError::invalid(res, name, &causes)) }
    }
}

fn is_subdomain(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 253
        && name.split('.').all(|label| {
            edge(label.chars().next())
                && edge(label.chars().next_back())
                && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        })
}
