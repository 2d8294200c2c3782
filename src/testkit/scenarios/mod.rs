//! What the in-process server and the real one must agree on.
//!
//! A [`Scenario`] makes API calls in a namespace of its own and writes down what it saw, with everything taken out
//! that may differ from run to run (uids, times, resourceVersions, the namespace's name). The same list is run against
//! both servers and the traces are compared; the real server is always right.

mod apply;
mod basics;
mod controllers;
mod lists;
mod run;
mod secrets;
mod status;
mod watches;
mod widgets;

use futures::future::BoxFuture;
use kube::Client;
use tower::BoxError;

pub use run::{Reply, Run, Trace};
pub use widgets::{crd, widgets};

/// One story told to a server.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What it is about, in snake case.
    pub name: &'static str,
    /// Tells it in this namespace, which exists and is empty.
    pub run: fn(Client, String) -> BoxFuture<'static, Result<Trace, BoxError>>,
}

/// Makes a [`Scenario`] of an `async fn(&mut Run) -> Result<(), BoxError>`.
macro_rules! scenario {
    ($module:ident :: $name:ident) => {
        Scenario {
            name: stringify!($name),
            run: |client, namespace| {
                Box::pin(async move {
                    let mut run = Run::new(client, namespace);
                    $module::$name(&mut run).await?;
                    Ok(run.finish())
                })
            },
        }
    };
}

/// Every scenario.
#[must_use]
pub fn all() -> Vec<Scenario> {
    vec![
        scenario!(basics::create_get_replace),
        scenario!(basics::merge_and_json_patch),
        scenario!(basics::delete_preconditions),
        scenario!(basics::identity_mismatches),
        scenario!(basics::lease_compare_and_swap),
        scenario!(basics::finalizers),
        scenario!(apply::apply_create_update_noop),
        scenario!(apply::apply_removes_what_it_drops),
        scenario!(apply::apply_conflict_and_force),
        scenario!(apply::apply_after_update),
        scenario!(apply::apply_create_only),
        scenario!(apply::apply_uid_preconditions),
        scenario!(apply::apply_list_maps),
        scenario!(apply::apply_owner_references),
        scenario!(apply::apply_in_missing_namespace),
        scenario!(status::status_isolation),
        scenario!(status::status_apply),
        scenario!(status::generation),
        scenario!(secrets::secret_type_is_immutable),
        scenario!(secrets::secret_data),
        scenario!(lists::paging),
        scenario!(lists::selectors),
        scenario!(lists::metadata_only),
        scenario!(watches::label_selected_metadata_watch),
        scenario!(watches::streaming_list),
        scenario!(watches::watch_from_a_version),
        scenario!(controllers::owner_references_are_collected),
        scenario!(controllers::orphans_stay),
        scenario!(controllers::terminating_namespace),
    ]
}
