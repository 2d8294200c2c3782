//! I9: nothing that a user without rights on `apitokens/status` writes changes any verdict on a token of another namespace,
//! or who is told of its use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokenward::api::{ApiToken, Outcome, TokenUsageStatus, keys};
use tokenward::domain::token::Token;
use tokenward::testkit::apiserver::RequestInfo;
use tokenward::testkit::world::World;
use tokenward::testkit::world::chance::Chance;
use tokenward::testkit::world::mallory::{CLIENT, LAIR, Mallory};

use crate::support::{SHOP, minutes, seconds, sound, virtually};

const GATES: [&str; 2] = ["g", "h"];
const VICTIMS: [&str; 3] = ["orders", "search", "web"];

/// Two tenants and all that happens between them.
struct Town {
    world: World,
    chance: Chance,
    mallory: Mallory,
    /// Every whole token that ever stood in a Secret of the victims.
    tokens: BTreeSet<String>,
    /// Requests that gates accepted, by victim.
    accepted: BTreeMap<String, i64>,
    acts: u64,
}

impl Town {
    async fn new(seed: u64) -> Self {
        let mut world = World::with_ledger(seed);
        world.start("a");
        GATES.into_iter().for_each(|gate| world.start_gate(gate));
        // As RBAC has it for somebody with rights in one namespace.
        world.server.set_authorizer(Some(Arc::new(|request: &RequestInfo| {
            let own = request.namespace.as_deref() == Some(LAIR) && request.subresource.is_none();
            let allowed = own && ["apitokens", "secrets"].contains(&request.resource.as_str());
            if &*request.client != CLIENT || allowed { Ok(()) } else { Err("forbidden".to_owned()) }
        })));
        let mallory = Mallory::new(&world.server);
        world.pass(minutes(2)).await;
        for name in VICTIMS {
            world.people.declare(SHOP, name, serde_json::json!({"scopes": ["read"]})).await.unwrap();
        }
        world.pass(seconds(30)).await;
        let (tokens, accepted) = (BTreeSet::new(), BTreeMap::new());
        Self { world, chance: Chance::new(seed, 9), mallory, tokens, accepted, acts: 0 }
    }

    /// What the victims do for themselves, seldom enough that no status forgets what has ended.
    async fn victim(&mut self) {
        let name = *self.chance.pick(&VICTIMS);
        let people = self.world.people.clone();
        let value = self.acts.to_string();
        let line = match self.chance.below(5) {
            0 => {
                let suspend = self.chance.percent(40);
                people.edit(SHOP, name, serde_json::json!({"spec": {"suspend": suspend}})).await.unwrap();
                format!("{name}: suspend {suspend}")
            }
            1 => {
                people.annotate(SHOP, name, keys::RETIRE_NOW_AT, &value).await.unwrap();
                format!("{name}: retired")
            }
            2 => {
                let _ = people.delete_secret(SHOP, name).await;
                format!("{name}: Secret deleted")
            }
            3 => {
                people.annotate(SHOP, name, keys::COMPROMISED_AT, &value).await.unwrap();
                format!("{name}: compromised")
            }
            _ => {
                people.annotate(SHOP, name, keys::ROTATE_REQUESTED_AT, &value).await.unwrap();
                format!("{name}: rotated")
            }
        };
        self.world.tell(line);
    }

    fn victims(&self) -> Vec<ApiToken> {
        VICTIMS.into_iter().filter_map(|name| self.world.token(SHOP, name)).collect()
    }

    fn learn(&mut self) {
        for name in VICTIMS {
            let Some(secret) = self.world.server.get("secrets", SHOP, name) else { continue };
            let value = secret["data"]["token"].as_str().unwrap_or_default();
            let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, value).unwrap();
            self.tokens.extend(String::from_utf8(bytes));
        }
    }

    /// Whether the victim's own ApiToken lets it pass; `None` if none names it (any more).
    fn expected(&self, text: &str) -> Option<(String, bool)> {
        let digest = Token::parse(text).unwrap().digest();
        let now = self.world.now();
        self.victims().into_iter().find_map(|token| {
            let status = token.status.clone().unwrap_or_default();
            let living = status.credentials.iter().find(|living| living.digest == digest);
            let ended = status.ended.iter().any(|ended| ended.digest == digest);
            let asked = token.annotation(keys::COMPROMISED_AT);
            let handled = status.last_handled.clone().unwrap_or_default().compromised_at;
            let compromised = asked.is_some() && asked != handled.as_deref();
            let lives = living.is_some_and(|living| living.not_after.as_ref().is_none_or(|end| now < end.0));
            let key = format!("{}/{}", token.namespace(), token.name());
            (living.is_some() || ended).then_some((key, lives && !token.spec.suspend && !compromised))
        })
    }

    /// Asks, and notes whose use that was.
    fn ask(&mut self, gate: &str, text: &str) -> (Outcome, Option<String>) {
        let (outcome, whose) = self.world.gate(gate).unwrap().ask_whose(text);
        whose.iter().for_each(|whose| *self.accepted.entry(whose.clone()).or_default() += 1);
        (outcome, whose)
    }

    async fn check(&mut self) {
        for text in self.tokens.clone() {
            for gate in GATES {
                let (mut outcome, mut whose) = self.ask(gate, &text);
                if self.expected(&text).is_some_and(|(victim, passes)| whose != passes.then_some(victim)) {
                    // The change may be of this very moment, and on its way to the gate.
                    self.world.pass(Duration::from_millis(100)).await;
                    (outcome, whose) = self.ask(gate, &text);
                }
                let Some((victim, passes)) = self.expected(&text) else { continue };
                let wanted = passes.then(|| victim.clone());
                let story = || self.world.story.join("\n");
                assert_eq!(whose, wanted, "I9: {victim} at {gate}: {outcome:?}\n{}", story());
                let known = ![Outcome::UnknownCredential, Outcome::WrongSecret].contains(&outcome);
                assert!(known, "I9: {victim} at {gate}: {outcome:?}\n{}", story());
            }
        }
        sound(&self.world);
    }
}

fn lived(seed: u64) {
    virtually(async {
        let mut town = Town::new(seed).await;
        for act in 0..120 {
            town.acts = act;
            town.learn();
            if act % 12 == 5 {
                town.victim().await;
            } else {
                let known: Vec<_> = town.tokens.iter().cloned().collect();
                let server = town.world.server.clone();
                let line = town.mallory.act(&mut town.chance, &server, &known, &act.to_string()).await;
                town.world.tell(line);
            }
            if town.chance.percent(5) {
                town.world.kill("a");
                town.world.start("a");
            }
            let pause = town.chance.time(Duration::from_millis(200), Duration::from_secs(40));
            town.world.pass(pause).await;
            town.check().await;
        }
        // Nobody else was told of their use, and they of all of it.
        town.world.pass(minutes(20)).await;
        for name in VICTIMS {
            let stored = town.world.server.get("tokenusages", SHOP, name).unwrap_or_default();
            let usage: TokenUsageStatus =
                serde_json::from_value(stored["status"].clone()).unwrap_or_default();
            let wanted = town.accepted.get(&format!("{SHOP}/{name}")).copied().unwrap_or_default();
            assert_eq!(usage.requests, wanted, "{name}\n{}", town.world.story.join("\n"));
        }
    });
}

#[test]
fn what_one_tenant_writes_changes_no_verdict_on_anothers_tokens() {
    let seeds = std::env::var("TOKENWARD_SEEDS").map_or(40, |text| text.parse().expect("a number of seeds"));
    (0..seeds.min(1_000)).for_each(lived);
}
