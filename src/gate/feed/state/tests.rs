use proptest::prelude::*;

use super::*;

/// Steps through `events`; the commands of each, in short.
fn walk(feed: Feed, events: &[Event]) -> (Feed, Vec<Vec<Command>>) {
    let mut feed = feed;
    let mut all = Vec::new();
    for event in events {
        let (next, commands) = feed.step(event.clone());
        feed = next;
        all.push(commands);
    }
    (feed, all)
}

fn added(version: &str) -> Event {
    Event::Changed(Change::Applied, version.into())
}

fn deleted(version: &str) -> Event {
    Event::Changed(Change::Deleted, version.into())
}

fn bookmark(version: &str) -> Event {
    Event::Bookmark { version: version.into(), end: false }
}

fn end(version: &str) -> Event {
    Event::Bookmark { version: version.into(), end: true }
}

fn page(version: &str, next: Option<&str>) -> Event {
    Event::Page { version: version.into(), next: next.map(Into::into) }
}

fn reached(version: &str) -> Command {
    Command::Reached(version.into())
}

/// A feed that watches from version 9, with something received.
fn watching() -> Feed {
    walk(Feed::default(), &[Event::Due, end("9")]).0
}

#[test]
fn a_streaming_list_ends_with_its_bookmark_and_goes_on_as_a_watch() {
    let events = [Event::Due, added("7"), deleted("8"), end("9"), added("12"), deleted("15"), bookmark("20")];
    let (feed, commands) = walk(Feed::default(), &events);
    assert_eq!(
        commands,
        [
            vec![Command::Begin, Command::Stream],
            vec![Command::Item, Command::Next],
            vec![Command::Delete, Command::Next],
            vec![Command::End, reached("9"), Command::Next],
            vec![Command::Apply, reached("12"), Command::Next],
            vec![Command::Delete, reached("15"), Command::Next],
            vec![reached("20"), Command::Next],
        ]
    );
    assert!(feed.synced);
}

#[test]
fn a_server_without_streaming_lists_is_asked_for_pages_ever_after() {
    for no in [Event::Failed(Failure::Refused), bookmark("9"), Event::Ended, Event::Silent] {
        let events = [
            Event::Due,
            no,
            page("9", Some("c")),
            page("9", None),
            Event::Failed(Failure::Expired),
            Event::Due,
        ];
        let (feed, commands) = walk(Feed::default(), &events);
        assert_eq!(
            commands,
            [
                vec![Command::Begin, Command::Stream],
                vec![Command::Begin, Command::List(None)],
                vec![Command::Item, Command::List(Some("c".into()))],
                vec![Command::Item, Command::End, reached("9"), Command::Watch("9".into())],
                vec![Command::Pause],
                vec![Command::Restart, Command::Begin, Command::List(None)],
            ]
        );
        assert!(feed.synced, "it still serves what it knew");
    }
}

#[test]
fn a_page_that_failed_is_asked_for_again_and_a_list_that_expired_from_the_beginning() {
    let paging =
        walk(Feed::default(), &[Event::Due, Event::Failed(Failure::Refused), page("9", Some("c"))]).0;
    for failure in [Event::Failed(Failure::Other), Event::Failed(Failure::Refused), Event::Silent] {
        let (feed, commands) = walk(paging.clone(), &[failure, Event::Due]);
        assert_eq!(commands, [vec![Command::Pause], vec![Command::List(Some("c".into()))]]);
        assert!(!feed.synced);
    }
    let (_, commands) = walk(paging, &[Event::Failed(Failure::Expired), Event::Due]);
    assert_eq!(commands, [vec![Command::Pause], vec![Command::Begin, Command::List(None)]]);
}

#[test]
fn a_broken_streaming_list_is_begun_anew() {
    let (feed, commands) =
        walk(Feed::default(), &[Event::Due, added("7"), Event::Failed(Failure::Other), Event::Due]);
    assert_eq!(commands[2..], [vec![Command::Pause], vec![Command::Begin, Command::Stream]]);
    assert!(!feed.synced);
}

#[test]
fn a_watch_goes_on_from_where_it_was() {
    let (feed, commands) = walk(watching(), &[added("12"), Event::Ended]);
    assert_eq!(
        commands[1],
        [Command::Watch("12".into())],
        "a watch ends every few minutes: nothing is wrong"
    );
    // But not in a circle, where the server ends each at once.
    let (feed, commands) = walk(feed, &[Event::Ended, Event::Due]);
    assert_eq!(commands, [vec![Command::Pause], vec![Command::Watch("12".into())]]);
    let (feed, commands) = walk(feed, &[Event::Failed(Failure::Other), Event::Due]);
    assert_eq!(commands, [vec![Command::Pause], vec![Command::Watch("12".into())]]);
    let (_, commands) = walk(feed, &[Event::Silent]);
    assert_eq!(commands, [vec![Command::Watch("12".into())]], "a dead connection");
}

#[test]
fn an_expired_version_and_a_history_that_goes_back_start_over() {
    let restart = vec![Command::Restart, Command::Begin, Command::Stream];
    for event in [Event::Failed(Failure::Expired), added("8"), bookmark("3")] {
        assert_eq!(walk(watching(), &[event]).1, std::slice::from_ref(&restart));
    }
    // Without anything in between, after a pause.
    let again = walk(watching(), &[Event::Ended, Event::Failed(Failure::Expired), Event::Due]).1;
    assert_eq!(again[1..], [vec![Command::Pause], restart]);
}

#[test]
fn an_object_without_a_version_does_not_lose_the_place() {
    let (_, commands) = walk(watching(), &[added(""), Event::Ended]);
    assert_eq!(commands[1], [Command::Watch("9".into())]);
}

fn any_event() -> impl Strategy<Value = Event> {
    let version = || (1_u32..30).prop_map(|version| version.to_string());
    let failure = prop_oneof![Just(Failure::Expired), Just(Failure::Refused), Just(Failure::Other)];
    prop_oneof![
        Just(Event::Due),
        version().prop_map(|version| Event::Changed(Change::Applied, version)),
        version().prop_map(|version| Event::Changed(Change::Deleted, version)),
        (version(), any::<bool>()).prop_map(|(version, end)| Event::Bookmark { version, end }),
        (version(), any::<bool>()).prop_map(|(version, more)| page(&version, more.then_some("c"))),
        Just(Event::Ended),
        Just(Event::Silent),
        failure.prop_map(Event::Failed),
    ]
}

proptest! {
    /// Whatever comes in whatever order: the last command waits for something, no other does; a list ends only after it
    /// began; a watch never goes back, unless everything was listed anew.
    #[test]
    fn every_step_leads_on(events in proptest::collection::vec(any_event(), 1..60)) {
        let (mut feed, mut commands) = Feed::default().step(Event::Due);
        let (mut listing, mut floor) = (false, 0_u64);
        let mut events = events.into_iter();
        loop {
            let waits = |command: &Command| matches!(
                command,
                Command::Next | Command::Watch(_) | Command::Stream | Command::List(_) | Command::Pause
            );
            prop_assert_eq!(commands.iter().filter(|command| waits(command)).count(), 1);
            prop_assert!(commands.last().is_some_and(waits));
            for command in &commands {
                match command {
                    Command::Begin => (listing, floor) = (true, 0),
                    Command::End => prop_assert!(std::mem::take(&mut listing)),
                    Command::Item => prop_assert!(listing),
                    Command::Apply => prop_assert!(!listing),
                    Command::Watch(version) | Command::Reached(version) => {
                        let version = version.parse().unwrap_or(0);
                        prop_assert!(version >= floor);
                        floor = version;
                    }
                    _ => {}
                }
            }
            let Some(event) = events.next() else { break };
            (feed, commands) = feed.step(event);
        }
    }
}
