//! What is known of a token's use, for the controller.

use k8s_openapi::jiff::Timestamp;

use super::Hall;
use crate::domain::coverage::Watched;
use crate::domain::ports::UsageSource;
use crate::domain::usage::Observation;

impl UsageSource for Hall {
    fn observe(&self, uid: &str, now: Timestamp) -> Observation {
        let known = self.desk.lock().as_ref().map(|(_, desk)| (desk.watched(now), desk.known(uid)));
        // No desk: the term has just begun, or is over. Nothing is concluded.
        let (watched, (last_used, persisted)) = known.unwrap_or((Watched::Settling, Default::default()));
        Observation { watched, last_used, persisted }
    }
}
