//! What people with few rights try: each as a user with exactly the rights that are named, against the operator and the gate.

mod identity;
mod large;
mod meaning;
mod mutations;
mod poison;
mod policies;
mod rights;
mod templates;
mod truth;
