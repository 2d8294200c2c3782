//! What API servers and networks do to a feed.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::testkit::apiserver::{Fault, RequestInfo};

/// Strikes at the gate's first `times` requests of one kind.
fn strike(world: &World, verb: Verb, times: usize, fault: Fault) {
    let struck = AtomicUsize::new(0);
    world.server.set_faults(Some(Arc::new(move |request: &RequestInfo| {
        let hit = &*request.client == "gate"
            && request.verb == verb
            && struck.fetch_add(1, Ordering::Relaxed) < times;
        if hit { fault } else { Fault::None }
    })));
}

const fn refused(code: u16) -> Fault {
    Fault::Status { code, retry_after: None }
}

#[tokio::test(start_paused = true)]
async fn a_server_without_streaming_lists_is_read_by_pages() {
    let mut world = World::new(settings());
    let all: Vec<Token> = (0..1_200).map(|number| minted("twd", number)).collect();
    for (number, token) in all.iter().enumerate() {
        world.declare(&format!("t{number}"), active(token)).await;
    }
    strike(&world, Verb::Watch, 1, refused(422));
    world.follow(&[]);
    pass(1).await;
    assert!(world.ready.borrow().is_ready());
    assert_eq!((world.asked(Verb::Watch), world.asked(Verb::List)), (2, 3));
    assert!(all.iter().all(|token| world.outcome(token) == Outcome::Accepted));
    world.delete("t7").await;
    pass(1).await;
    assert_eq!(world.outcome(&all[7]), Outcome::UnknownCredential);
    // It was told once, and is not asked again.
    world.server.compact();
    world.server.drop_watches();
    pass(60).await;
    assert_eq!(world.outcome(&all[8]), Outcome::Accepted);
}

#[tokio::test(start_paused = true)]
async fn what_was_revoked_while_nobody_watched_is_denied_after_the_next_list() {
    let world = World::ready().await;
    let [kept, revoked, deleted, new] = [1, 2, 3, 4].map(|number| minted("twd", number));
    for (name, token) in [("kept", &kept), ("revoked", &revoked), ("deleted", &deleted)] {
        world.declare(name, active(token)).await;
    }
    pass(1).await;
    world.server.partition("gate", true);
    world.set_status("revoked", json!({"ended": [ended(&revoked)]})).await;
    world.delete("deleted").await;
    world.declare("new", active(&new)).await;
    world.server.compact();
    pass(3_600).await;
    let outcomes = || [&kept, &revoked, &deleted, &new].map(|token| world.outcome(token));
    assert_eq!(
        outcomes(),
        [Outcome::Accepted, Outcome::Accepted, Outcome::Accepted, Outcome::UnknownCredential]
    );
    assert!(world.age() >= 3_599);
    world.server.partition("gate", false);
    pass(30).await;
    assert_eq!(
        outcomes(),
        [Outcome::Accepted, Outcome::Ended, Outcome::UnknownCredential, Outcome::Accepted]
    );
    assert!(world.metrics.process.watch_restarts.get([SYNCED]) >= 1);
    assert!(world.age() <= 60);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_goes_on_where_it_was() {
    let world = World::ready().await;
    let [first, second] = [1, 2].map(|number| minted("twd", number));
    world.server.drop_watches();
    world.declare("first", active(&first)).await;
    pass(2).await;
    assert_eq!(world.outcome(&first), Outcome::Accepted);
    strike(&world, Verb::Watch, 4, refused(503));
    world.server.drop_watches();
    world.declare("second", active(&second)).await;
    pass(60).await;
    assert_eq!(world.outcome(&second), Outcome::Accepted);
    assert_eq!((world.asked(Verb::List), world.metrics.process.watch_restarts.get([SYNCED])), (0, 0));
    assert_eq!(world.metrics.process.watch_errors.get([SYNCED]), 6, "two that broke, four that were refused");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_died_without_a_word_is_noticed() {
    let world = World::ready().await;
    let token = minted("twd", 1);
    world.server.partition("gate", true);
    world.declare("t", active(&token)).await;
    pass(140).await;
    let before = world.metrics.process.watch_errors.get([SYNCED]);
    pass(20).await;
    assert_eq!(world.metrics.process.watch_errors.get([SYNCED]), before + 1, "after 150 seconds");
    world.server.partition("gate", false);
    pass(1).await;
    assert_eq!(world.outcome(&token), Outcome::Accepted);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_for_a_week_leaves_the_answers_as_they_were() {
    let world = World::ready().await;
    let token = minted("twd", 1);
    world.declare("t", active(&token)).await;
    pass(1).await;
    world.server.set_down(true);
    let before = world.asked(Verb::Watch) + world.asked(Verb::List);
    pass(7 * 86_400).await;
    assert_eq!(world.outcome(&token), Outcome::Accepted);
    assert!(world.ready.borrow().is_ready());
    let asked = world.asked(Verb::Watch) + world.asked(Verb::List) - before;
    assert!(asked <= 7 * 86_400 / 15 + 10, "it is not flooded: {asked}");
    world.server.set_down(false);
    // The watch goes on after 15 seconds at most, and says something within a minute.
    pass(80).await;
    assert!(world.age() < 60);
}

#[tokio::test(start_paused = true)]
async fn whoever_prefers_to_deny_does_so_while_the_feed_is_stale() {
    let mut world = World::new(Settings { deny_when_stale_for: Some(Duration::from_secs(90)), ..settings() });
    let token = minted("twd", 1);
    world.declare("t", active(&token)).await;
    world.follow(&[]);
    pass(3_600).await;
    assert_eq!(world.outcome(&token), Outcome::Accepted, "bookmarks are enough");
    world.server.set_down(true);
    pass(29).await;
    assert_eq!(world.outcome(&token), Outcome::Accepted);
    pass(70).await;
    assert_eq!(world.outcome(&token), Outcome::Stale);
    world.server.set_down(false);
    // The next bookmark tells.
    pass(90).await;
    assert_eq!(world.outcome(&token), Outcome::Accepted);
}

#[tokio::test(start_paused = true)]
async fn a_start_into_a_broken_server_ends_well() {
    for fault in [
        refused(500),
        refused(410),
        refused(400),
        refused(403),
        Fault::FailBefore,
        Fault::Hang,
        Fault::Delay(Duration::from_secs(5)),
        Fault::DropWatch(Duration::ZERO),
    ] {
        let mut world = World::new(settings());
        let token = minted("twd", 1);
        world.declare("t", active(&token)).await;
        let struck = AtomicUsize::new(0);
        world.server.set_faults(Some(Arc::new(move |request: &RequestInfo| {
            let hit = &*request.client == "gate" && struck.fetch_add(1, Ordering::Relaxed) < 3;
            if hit { fault } else { Fault::None }
        })));
        world.follow(&[]);
        // A request that hangs is given up after 150 seconds.
        pass(500).await;
        assert!(world.ready.borrow().is_ready(), "{fault:?}");
        assert_eq!(world.outcome(&token), Outcome::Accepted, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_object_that_nobody_understands_is_denied_and_stops_nothing() {
    let world = World::ready().await;
    let [broken, listed, sound] = [1, 2, 3].map(|number| minted("twd", number));
    world.declare("broken", active(&broken)).await;
    pass(1).await;
    assert_eq!(world.outcome(&broken), Outcome::Accepted);
    // Whoever wrote this, it may have been meant to revoke: the last good version does not count any more.
    let damaged = json!({"credentials": [{"id": broken.id(), "state": "Sleeping"}]});
    world.set_status("broken", damaged).await;
    world.declare("sound", active(&sound)).await;
    pass(1).await;
    assert_eq!((world.outcome(&broken), world.outcome(&sound)), (Outcome::Unreadable, Outcome::Accepted));
    world.declare("listed", json!({"credentials": [{"id": listed.id()}]})).await;
    world.server.compact();
    world.server.drop_watches();
    pass(60).await;
    assert_eq!((world.outcome(&broken), world.outcome(&listed)), (Outcome::Unreadable, Outcome::Unreadable));
    assert_eq!(world.gate.index().stats().unreadable, 2);
    world.set_status("broken", active(&broken)).await;
    pass(1).await;
    assert_eq!(world.outcome(&broken), Outcome::Accepted);
}
