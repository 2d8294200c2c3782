//! The decisions of one watch: when to list, how, from which version to watch, and when a watch is taken for dead.
//!
//! ```text
//! Start ──► Streaming ──(end of the initial events)──► Watching ──(410, versions that go back)──► Start
//!   └─────► Paging ─────(last page)────────────────────┘
//! ```
//!
//! [`Feed::step`] takes one [`Event`] and returns the [`Command`]s to carry out, in order. The last one says what to wait
//! for next. What is in hand (an object, a page) is not part of an event: commands say what becomes of it.

use std::time::Duration;

#[cfg(test)]
mod tests;

/// A watch that shows nothing for so long is taken for dead. Bookmarks come every minute.
pub const SILENCE: Duration = Duration::from_secs(150);
/// Objects of one page.
pub const PAGE: u32 = 500;

/// How an object changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Added or modified.
    Applied,
    /// Deleted.
    Deleted,
}

/// Something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The version is too old, or from a history that is no more.
    Expired,
    /// The server does not understand the question.
    Refused,
    /// Anything else: try again.
    Other,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The pause is over; also the first event.
    Due,
    /// An object came over the watch.
    Changed(Change, String),
    /// A bookmark came over the watch.
    Bookmark {
        /// Up to where everything was sent.
        version: String,
        /// Whether it ends the initial events of a streaming list.
        end: bool,
    },
    /// A page of a list came.
    Page {
        /// Of the list.
        version: String,
        /// Where the next page begins, if there is one.
        next: Option<String>,
    },
    /// The watch ended as watches do.
    Ended,
    /// Nothing came for [`SILENCE`].
    Silent,
    /// A call failed, or the watch broke off.
    Failed(Failure),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A list begins.
    Begin,
    /// What is in hand belongs to the list.
    Item,
    /// The list is complete.
    End,
    /// What is in hand was added or changed.
    Apply,
    /// What is in hand was deleted.
    Delete,
    /// The last version that is known to be in; for the metric.
    Reached(String),
    /// Everything is listed anew, not for the first time.
    Restart,
    /// Wait for the next line of the watch that is open.
    Next,
    /// Open a watch from this version.
    Watch(String),
    /// Open a watch that begins with everything there is.
    Stream,
    /// Ask for a page.
    List(Option<String>),
    /// Wait for a while, longer each time that something fails; then [`Event::Due`].
    Pause,
}

/// Where a feed stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// To list.
    Start,
    /// The initial events are coming.
    Streaming,
    /// A page is asked for, or to be asked for.
    Paging(Option<String>),
    /// Everything up to a version is known.
    Watching {
        version: String,
        /// Something came over this watch.
        fruitful: bool,
    },
}

/// One watch. See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    state: State,
    /// Whether the server is thought to know streaming lists.
    streaming: bool,
    /// Whether everything was listed once.
    synced: bool,
}

impl Default for Feed {
    fn default() -> Self {
        Self { state: State::Start, streaming: true, synced: false }
    }
}

impl Feed {
    /// Takes one event. Never fails: what does not fit the state is taken for a broken connection.
    pub fn step(mut self, event: Event) -> (Self, Vec<Command>) {
        let commands = match (std::mem::replace(&mut self.state, State::Start), event) {
            (State::Start, Event::Due) => self.list(),
            (State::Paging(from), Event::Due) => {
                self.state = State::Paging(from.clone());
                vec![Command::List(from)]
            }
            (State::Watching { version, .. }, Event::Due) => self.watch(version),
            (State::Streaming, event) => self.streaming(event),
            (State::Paging(from), event) => self.paging(from, event),
            (State::Watching { version, fruitful }, event) => self.watching(version, fruitful, event),
            (State::Start, _) => vec![Command::Pause],
        };
        (self, commands)
    }

    fn list(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.synced {
            commands.push(Command::Restart);
        }
        commands.push(Command::Begin);
        if self.streaming {
            self.state = State::Streaming;
            commands.push(Command::Stream);
        } else {
            self.state = State::Paging(None);
            commands.push(Command::List(None));
        }
        commands
    }

    fn watch(&mut self, version: String) -> Vec<Command> {
        self.state = State::Watching { version: version.clone(), fruitful: false };
        vec![Command::Watch(version)]
    }

    /// The server has no streaming list, or none that ends: by pages from now on.
    fn page_instead(&mut self) -> Vec<Command> {
        self.streaming = false;
        self.state = State::Paging(None);
        vec![Command::Begin, Command::List(None)]
    }

    fn streaming(&mut self, event: Event) -> Vec<Command> {
        match event {
            Event::Changed(change, _) => {
                self.state = State::Streaming;
                let command = match change {
                    Change::Applied => Command::Item,
                    Change::Deleted => Command::Delete,
                };
                vec![command, Command::Next]
            }
            Event::Bookmark { version, end: true } => {
                self.synced = true;
                self.state = State::Watching { version: version.clone(), fruitful: true };
                vec![Command::End, Command::Reached(version), Command::Next]
            }
            // A server that knows streaming lists sends no other bookmark before the one that ends them. And it neither falls
            // silent nor ends the watch before; if it takes longer than a watch may last, pages are the way out.
            Event::Bookmark { end: false, .. }
            | Event::Silent
            | Event::Ended
            | Event::Failed(Failure::Refused) => self.page_instead(),
            Event::Failed(_) | Event::Due | Event::Page { .. } => vec![Command::Pause],
        }
    }

    fn paging(&mut self, from: Option<String>, event: Event) -> Vec<Command> {
        match event {
            Event::Page { next: Some(next), .. } => {
                self.state = State::Paging(Some(next.clone()));
                vec![Command::Item, Command::List(Some(next))]
            }
            Event::Page { version, next: None } => {
                self.synced = true;
                let mut commands = vec![Command::Item, Command::End, Command::Reached(version.clone())];
                commands.extend(self.watch(version));
                commands
            }
            // The list that the next page belongs to is gone: from the beginning.
            Event::Failed(Failure::Expired) => vec![Command::Pause],
            // The pages that came are in already: that one again.
            _ => {
                self.state = State::Paging(from);
                vec![Command::Pause]
            }
        }
    }

    fn watching(&mut self, version: String, fruitful: bool, event: Event) -> Vec<Command> {
        match event {
            // A history that goes back is another history: a backup was restored.
            Event::Changed(_, new) | Event::Bookmark { version: new, .. } if is_before(&new, &version) => {
                self.list()
            }
            Event::Changed(change, new) => {
                // An object that was damaged may not say its version.
                let version = if new.is_empty() { version } else { new };
                self.state = State::Watching { version: version.clone(), fruitful: true };
                let command = match change {
                    Change::Applied => Command::Apply,
                    Change::Deleted => Command::Delete,
                };
                vec![command, Command::Reached(version), Command::Next]
            }
            Event::Bookmark { version, .. } => {
                self.state = State::Watching { version: version.clone(), fruitful: true };
                vec![Command::Reached(version), Command::Next]
            }
            // A first one, after a watch that worked, is no reason to wait.
            Event::Failed(Failure::Expired) if fruitful => self.list(),
            Event::Failed(Failure::Expired | Failure::Refused) => vec![Command::Pause],
            Event::Ended if fruitful => self.watch(version),
            Event::Silent => self.watch(version),
            Event::Ended | Event::Failed(Failure::Other) | Event::Page { .. } | Event::Due => {
                self.state = State::Watching { version, fruitful: false };
                vec![Command::Pause]
            }
        }
    }
}

/// Versions are numbers that grow; where they are none, nothing is concluded.
fn is_before(new: &str, known: &str) -> bool {
    match (new.parse::<u64>(), known.parse::<u64>()) {
        (Ok(new), Ok(known)) => new < known,
        _ => false,
    }
}
