//! One candidate against scripted answers.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn config() -> Config {
    Config::new("me", SECOND * 15, SECOND * 10, SECOND).expect("valid")
}

fn at(mono: f64) -> Moment {
    let mono = Duration::from_secs_f64(mono);
    Moment { mono, wall: Timestamp::UNIX_EPOCH + mono }
}

fn seen(version: &str, holder: &str, renewed: i64) -> Seen {
    Seen {
        version: version.into(),
        record: Record {
            holder: holder.into(),
            duration_seconds: Some(15),
            acquired: Timestamp::from_second(1).ok(),
            renewed: Timestamp::from_second(renewed).ok(),
            transitions: 4,
        },
    }
}

fn secs(seconds: f64) -> Command {
    Command::Wait(Duration::from_secs_f64(seconds))
}

/// Accepts the write in `command`, as an API server would.
fn stored(command: Command, version: &str) -> Event {
    match command {
        Command::Create(record) | Command::Replace { record, .. } => {
            Event::Written(Seen { version: version.into(), record })
        }
        other => panic!("not a write: {other:?}"),
    }
}

fn leader() -> Election {
    let mut election = Election::new(config());
    assert_eq!(election.step(at(0.0), Event::Tick), Command::Fetch);
    let create = election.step(at(0.0), Event::Fetched(None));
    assert_eq!(election.step(at(0.5), stored(create, "1")), secs(2.0));
    assert!(election.leads(Duration::ZERO));
    election
}

#[test]
fn the_first_candidate_creates_the_lease_and_counts_from_sending() {
    let election = leader();
    assert_eq!(election.valid_until(), Some(SECOND * 10), "sent at 0, answered at 0.5");
    assert_eq!((election.term(), election.holder()), (1, "me"));
}

#[test]
fn a_leader_renews_without_reading_first() {
    let mut election = leader();
    let renewal = election.step(at(2.0), Event::Tick);
    let Command::Replace { version, record } = &renewal else { panic!("{renewal:?}") };
    assert_eq!((version.as_str(), record.transitions), ("1", 0));
    assert_eq!(record.acquired, Some(at(0.0).wall), "kept");
    assert_eq!(record.renewed, Some(at(2.0).wall));
    assert_eq!(election.step(at(2.1), stored(renewal, "2")), secs(4.0));
    assert_eq!((election.valid_until(), election.term()), (Some(SECOND * 12), 1));
}

#[test]
fn a_held_lease_is_taken_over_only_after_it_stood_still_for_its_duration() {
    let mut election = Election::new(config());
    assert_eq!(election.step(at(0.0), Event::Fetched(Some(seen("7", "other", 100)))), secs(1.0));
    // Renewed meanwhile: the count starts again.
    assert_eq!(election.step(at(14.0), Event::Fetched(Some(seen("8", "other", 114)))), secs(15.0));
    assert_eq!(election.step(at(28.5), Event::Fetched(Some(seen("8", "other", 114)))), secs(29.0));
    let take = election.step(at(29.0), Event::Fetched(Some(seen("8", "other", 114))));
    let Command::Replace { version, record } = &take else { panic!("{take:?}") };
    assert_eq!((version.as_str(), record.holder.as_str(), record.transitions), ("8", "me", 5));
    assert!(!election.leads(at(29.0).mono), "not before the answer");
    election.step(at(29.2), stored(take, "9"));
    assert!(election.leads(at(29.2).mono));
}

#[test]
fn somebody_editing_only_the_metadata_does_not_prolong_a_dead_leader() {
    let mut election = Election::new(config());
    election.step(at(0.0), Event::Fetched(Some(seen("7", "other", 100))));
    let take = election.step(at(15.0), Event::Fetched(Some(seen("9", "other", 100))));
    assert!(matches!(take, Command::Replace { ref version, .. } if version == "9"), "{take:?}");
}

#[test]
fn a_wall_clock_far_off_takes_nothing_over_early() {
    let mut election = Election::new(config());
    let now = Moment { mono: SECOND, wall: Timestamp::from_second(4_000_000_000).expect("in range") };
    assert!(matches!(election.step(now, Event::Fetched(Some(seen("7", "other", 100)))), Command::Wait(_)));
}

#[test]
fn the_duration_in_the_record_is_believed_up_to_a_bound() {
    let mut forged = seen("7", "other", 100);
    forged.record.duration_seconds = Some(i32::MAX);
    let mut election = Election::new(config());
    election.step(at(0.0), Event::Fetched(Some(forged.clone())));
    assert!(matches!(election.step(at(3599.0), Event::Fetched(Some(forged.clone()))), Command::Wait(_)));
    assert!(matches!(election.step(at(3600.0), Event::Fetched(Some(forged))), Command::Replace { .. }));
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let mut election = Election::new(config());
    election.step(at(0.0), Event::Fetched(Some(seen("7", "other", 100))));
    let take = election.step(at(1.0), Event::Fetched(Some(seen("8", "", 101))));
    assert!(matches!(take, Command::Replace { ref record, .. } if record.transitions == 5), "{take:?}");
}

#[test]
fn a_vanished_lease_of_somebody_is_waited_out_before_it_is_created_again() {
    let mut election = Election::new(config());
    election.step(at(0.0), Event::Fetched(Some(seen("7", "other", 100))));
    assert_eq!(election.step(at(1.0), Event::Fetched(None)), secs(2.0));
    assert!(matches!(election.step(at(15.0), Event::Fetched(None)), Command::Create(_)));
}

#[test]
fn leadership_lapses_by_itself_when_renewals_are_not_answered() {
    let mut election = leader();
    election.step(at(2.0), Event::Tick);
    assert_eq!(election.step(at(4.5), Event::Failed), secs(5.5));
    assert_eq!(election.step(at(5.5), Event::Tick), Command::Fetch, "the write may have had effect");
    assert!(election.leads(at(9.9).mono));
    assert!(!election.leads(at(10.0).mono));
}

#[test]
fn an_answer_that_comes_after_the_deadline_does_not_make_a_leader() {
    let mut election = Election::new(config());
    let create = election.step(at(0.0), Event::Fetched(None));
    let answer = stored(create, "1");
    election.step(at(10.0), answer);
    assert!(!election.leads(at(10.0).mono));
    assert_eq!(election.term(), 0);
}

#[test]
fn after_a_lost_answer_our_own_name_in_the_lease_is_claimed_by_swap_first() {
    let mut election = Election::new(config());
    election.step(at(0.0), Event::Fetched(None));
    election.step(at(2.5), Event::Failed);
    let claim = election.step(at(3.5), Event::Fetched(Some(seen("1", "me", 0))));
    assert!(!election.leads(at(3.5).mono), "reading our own name proves nothing about when");
    assert!(matches!(claim, Command::Replace { ref record, .. } if record.transitions == 4), "{claim:?}");
}

#[test]
fn a_leader_that_sees_another_holder_stops_at_once() {
    let mut election = leader();
    election.step(at(2.0), Event::Tick);
    assert_eq!(election.step(at(2.1), Event::Conflict), Command::Fetch);
    election.step(at(2.2), Event::Fetched(Some(seen("5", "other", 2))));
    assert!(!election.leads(at(2.2).mono));
}

#[test]
fn a_metadata_edit_costs_a_leader_one_read() {
    let mut election = leader();
    election.step(at(2.0), Event::Tick);
    assert_eq!(election.step(at(2.1), Event::Conflict), Command::Fetch);
    let again = election.step(at(2.2), Event::Fetched(Some(seen("5", "me", 0))));
    assert!(matches!(again, Command::Replace { ref version, .. } if version == "5"), "{again:?}");
    assert_eq!(election.step(at(2.3), Event::Conflict), secs(3.3), "but never a busy loop");
}

#[test]
fn two_renewals_differ_even_when_the_wall_clock_stands_still() {
    let mut election = leader();
    let frozen = Moment { mono: SECOND * 2, wall: at(0.0).wall };
    let Command::Replace { record, .. } = election.step(frozen, Event::Tick) else { panic!("no renewal") };
    assert_ne!(record.renewed, Some(at(0.0).wall));
}

#[test]
fn a_release_closes_the_fence_before_it_is_sent() {
    let mut election = leader();
    let release = election.step(at(3.0), Event::Release);
    assert!(!election.leads(at(3.0).mono));
    let Command::Replace { version, record } = &release else { panic!("{release:?}") };
    assert_eq!((version.as_str(), record.holder.as_str(), record.duration_seconds), ("1", "", Some(1)));
    assert_eq!(election.step(at(3.1), stored(release, "2")), Command::Done);
}

#[test]
fn a_release_during_a_renewal_reads_first() {
    let mut election = leader();
    election.step(at(2.0), Event::Tick);
    assert_eq!(election.step(at(2.1), Event::Release), Command::Fetch);
    let release = election.step(at(2.2), Event::Fetched(Some(seen("2", "me", 2))));
    assert!(matches!(release, Command::Replace { ref version, .. } if version == "2"), "{release:?}");
}

#[test]
fn a_standby_has_nothing_to_release_and_never_touches_a_foreign_lease() {
    let mut election = Election::new(config());
    election.step(at(0.0), Event::Fetched(Some(seen("7", "other", 100))));
    assert_eq!(election.step(at(0.5), Event::Release), Command::Done);
    let mut election = leader();
    election.step(at(2.0), Event::Tick);
    election.step(at(2.1), Event::Release);
    assert_eq!(election.step(at(2.2), Event::Fetched(Some(seen("2", "other", 2)))), Command::Done);
}

#[test]
fn an_unanswered_release_gives_up() {
    let mut election = leader();
    let mut command = election.step(at(3.0), Event::Release);
    let mut steps = 0;
    while command != Command::Done {
        let event = if matches!(command, Command::Wait(_)) { Event::Tick } else { Event::Failed };
        command = election.step(at(3.0 + f64::from(steps)), event);
        steps += 1;
        assert!(steps < 20, "never gives up");
    }
}

#[test]
fn incoherent_times_are_refused_by_the_name_of_their_flag() {
    let ms = Duration::from_millis;
    for (duration, deadline, retry, flag) in [
        (ms(1500), ms(900), ms(200), "--lease-duration 1s500ms must be a whole number"),
        (ms(0), ms(0), ms(0), "--lease-duration 0s must"),
        (ms(7_200_000), ms(900), ms(200), "--lease-duration 2h must"),
        (
            ms(10_000),
            ms(10_000),
            ms(200),
            "--lease-renew-deadline 10s must be shorter than --lease-duration 10s",
        ),
        (ms(15_000), ms(1_200), ms(1_000), "--lease-retry-period 1s times 1.2 must be shorter"),
        (ms(15_000), ms(10_000), ms(0), "--lease-retry-period 0s must be at least 100ms"),
    ] {
        let message = Config::new("me", duration, deadline, retry).expect_err(flag).to_string();
        assert!(message.starts_with(flag), "{message}");
    }
    assert_eq!(Config::new("", SECOND * 15, SECOND * 10, SECOND), Err(ConfigError::NoIdentity));
    assert!(Config::new("me", SECOND * 15, SECOND * 10, SECOND * 2).is_ok(), "the usual times of Kubernetes");
}
