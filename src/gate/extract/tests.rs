use super::*;
use proptest::prelude::*;

fn extracted(headers: &[(&str, &[u8])]) -> Result<(Source, String), Outcome> {
    let headers = headers.iter().copied();
    credential(headers, None, Places::usual("x-api-key"))
        .map(|found| (found.source(), found.as_str().to_owned()))
}

fn one(name: &str, value: &[u8]) -> Result<(Source, String), Outcome> {
    extracted(&[("host", b"orders"), (name, value), ("accept", b"*/*")])
}

fn basic(user_and_password: &str) -> Vec<u8> {
    let encoded = base64::engine::general_purpose::STANDARD.encode(user_and_password);
    format!("Basic {encoded}").into_bytes()
}

#[test]
fn what_is_accepted() {
    let good = |source, text: &str| Ok((source, text.to_owned()));
    let t: &[u8] = b"Bearer tok";
    for (name, value, expected) in [
        ("authorization", t, good(Source::Bearer, "tok")),
        ("Authorization", b"bearer tok", good(Source::Bearer, "tok")),
        ("AUTHORIZATION", b"BEARER  tok ", good(Source::Bearer, "tok")),
        ("authorization", b"\tBearer\ttok", good(Source::Bearer, "tok")),
        ("x-api-key", b"tok", good(Source::ApiKey, "tok")),
        ("X-API-Key", b" tok ", good(Source::ApiKey, "tok")),
        ("authorization", &basic("git:tok"), good(Source::Basic, "tok")),
        ("authorization", &basic(":tok"), good(Source::Basic, "tok")),
        ("authorization", &basic("zoë:tok"), good(Source::Basic, "tok")),
        ("authorization", &basic("a:b:c"), good(Source::Basic, "b:c")),
        ("authorization", &basic("tok:"), good(Source::Basic, "tok")),
        ("authorization", &basic("tok:x-oauth-basic"), good(Source::Basic, "tok")),
        ("authorization", b"token tok", good(Source::Bearer, "tok")),
        // Without its padding, as some clients send it.
        ("authorization", b"basic Z2l0OnRvaw", good(Source::Basic, "tok")),
    ] {
        assert_eq!(one(name, value), expected, "{name}: {}", value.escape_ascii());
    }
}

#[test]
fn what_is_refused() {
    let long = |length: usize| format!("Bearer {}", "x".repeat(length - 7)).into_bytes();
    assert!(one("authorization", &long(MAX_VALUE)).is_ok());
    for (name, value, expected) in [
        ("cookie", &b"tok"[..], Outcome::Missing),
        ("authorization", b"", Outcome::Missing),
        ("authorization", b"Negotiate abc", Outcome::Missing),
        ("authorization", b"Bearertok", Outcome::Missing),
        ("authorization", b"tok", Outcome::Missing),
        ("authorization", b"Bearer", Outcome::Malformed),
        ("authorization", b"Bearer ", Outcome::Malformed),
        ("authorization", b"Bearer a b", Outcome::Malformed),
        ("authorization", b"Bearer t\x00k", Outcome::Malformed),
        ("authorization", b"Bearer t\xffk", Outcome::Malformed),
        ("authorization", "Bearer tök".as_bytes(), Outcome::Malformed),
        ("authorization", &long(MAX_VALUE + 1), Outcome::Malformed),
        ("x-api-key", b" ", Outcome::Missing),
        ("x-api-key", b"a b", Outcome::Malformed),
        ("x-api-key", &[b'x'; MAX_VALUE + 1], Outcome::Malformed),
        ("authorization", b"Basic", Outcome::Malformed),
        ("authorization", b"Basic !!!", Outcome::Malformed),
        ("authorization", b"Basic Z2l0", Outcome::Malformed),
        ("authorization", &basic(":"), Outcome::Malformed),
        ("authorization", &basic(":x-oauth-basic"), Outcome::Malformed),
        ("authorization", &basic("tök:"), Outcome::Malformed),
        ("authorization", b"token", Outcome::Malformed),
        ("authorization", b"tokens tok", Outcome::Missing),
        ("authorization", &basic("git:t k"), Outcome::Malformed),
        ("authorization", &basic("git:tök"), Outcome::Malformed),
        ("authorization", &basic(&"x".repeat(400)), Outcome::Malformed),
    ] {
        assert_eq!(one(name, value), Err(expected), "{name}: {}", value.escape_ascii());
    }
    assert_eq!(extracted(&[]), Err(Outcome::Missing));
    // A long ticket of another scheme is not ours to judge.
    let ticket = [b"Negotiate ".to_vec(), vec![b'x'; 4_000]].concat();
    assert_eq!(one("authorization", &ticket), Err(Outcome::Missing));
}

#[test]
fn two_credentials_conflict() {
    let cases: [&[(&str, &[u8])]; 6] = [
        &[("authorization", b"Bearer a"), ("authorization", b"Bearer a")],
        &[("authorization", b"Bearer a"), ("Authorization", b"Basic Z2l0OnRvaw==")],
        &[("authorization", b"Bearer a"), ("x-api-key", b"a")],
        &[("x-api-key", b"a"), ("X-Api-Key", b"b")],
        &[("authorization", b"Negotiate abc"), ("x-api-key", b"a")],
        &[("x-api-key", b"a"), ("authorization", b"x")],
    ];
    for headers in cases {
        assert_eq!(extracted(headers), Err(Outcome::Conflicting), "{headers:?}");
    }
    // What is empty is nothing: proxies write it for what they do not have.
    assert_eq!(extracted(&[("x-api-key", b""), ("authorization", b"")]), Err(Outcome::Missing));
    let beside: [(&str, &[u8]); 2] = [("x-api-key", b""), ("authorization", b"Bearer a")];
    assert_eq!(extracted(&beside), Ok((Source::Bearer, "a".to_owned())));
    let token = crate::gate::fixtures::minted("twd", 1);
    let both = basic(&format!("{0}:{0}", token.expose()));
    assert_eq!(one("authorization", &both), Err(Outcome::Conflicting), "two tokens in one");
}

#[test]
fn a_route_says_where_it_looks() {
    let nowhere = Places { authorization: false, header: None, query: None, cookie: None, websocket: false };
    let header = Places { header: Some("x-key"), ..nowhere };
    let query = Places { query: Some("access_token"), ..nowhere };
    let cookie = Places { cookie: Some("token"), ..nowhere };
    let websocket = Places { websocket: true, ..nowhere };
    let either = Places { query: Some("access_token"), cookie: Some("token"), ..Places::usual("x-key") };
    type Case<'a> =
        (&'a [(&'a str, &'a [u8])], Option<&'a str>, Places<'a>, Result<(Source, &'a str), Outcome>);
    let cases: &[Case<'_>] = &[
        // An application's own credential is none of ours.
        (
            &[("authorization", b"Bearer own"), ("cookie", b"a=b"), ("x-key", b"t")],
            None,
            header,
            Ok((Source::ApiKey, "t")),
        ),
        (&[("authorization", b"Bearer own")], None, header, Err(Outcome::Missing)),
        (&[("x-key", b"t"), ("X-Key", b"t")], None, header, Err(Outcome::Conflicting)),
        (&[], Some("a=b&access_token=t"), query, Ok((Source::Query, "t"))),
        (&[], Some("access%5Ftoken=%74#access_token=x"), query, Ok((Source::Query, "t"))),
        (&[], Some("access_token=t&access_token=t"), query, Err(Outcome::Conflicting)),
        (&[], Some("access_token=t&access%5ftoken=u"), query, Err(Outcome::Conflicting)),
        (&[], Some("access_token=t+u"), query, Err(Outcome::Malformed)),
        (&[], Some("access_token=%zz"), query, Err(Outcome::Malformed)),
        (&[], Some("access_token=%00"), query, Err(Outcome::Malformed)),
        (
            &[],
            Some("access_token=&Access_Token=t&xaccess_token=t;access_token=t"),
            query,
            Err(Outcome::Missing),
        ),
        (&[("authorization", b"Bearer own")], Some("access_token=t"), query, Ok((Source::Query, "t"))),
        (&[], None, query, Err(Outcome::Missing)),
        (&[("cookie", b"a=b; token=t;c=d")], None, cookie, Ok((Source::Cookie, "t"))),
        (&[("cookie", b"xtoken=t; Token=t; token")], None, cookie, Err(Outcome::Missing)),
        (&[("cookie", b"token=t; token=u")], None, cookie, Err(Outcome::Conflicting)),
        (&[("cookie", b"token=t"), ("cookie", b"token=t")], None, cookie, Err(Outcome::Conflicting)),
        (&[("cookie", b"token=\"t t\"")], None, cookie, Err(Outcome::Malformed)),
        (
            &[("sec-websocket-protocol", b"chat, tokenward.bearer.t")],
            None,
            websocket,
            Ok((Source::WebSocket, "t")),
        ),
        (&[("sec-websocket-protocol", b"chat, tokenward.bearer.")], None, websocket, Err(Outcome::Missing)),
        (&[("sec-websocket-protocol", b"chat, t")], None, websocket, Err(Outcome::Missing)),
        (
            &[
                ("sec-websocket-protocol", b"tokenward.bearer.t"),
                ("sec-websocket-protocol", b"tokenward.bearer.t"),
            ],
            None,
            websocket,
            Err(Outcome::Conflicting),
        ),
        // Exactly one in all places that are read.
        (&[("authorization", b"Bearer t")], Some("access_token=t"), either, Err(Outcome::Conflicting)),
        (&[("x-key", b"t"), ("cookie", b"token=t")], None, either, Err(Outcome::Conflicting)),
        (&[("cookie", b"other=t")], Some("access_token=t"), either, Ok((Source::Query, "t"))),
    ];
    for (headers, query, places, expected) in cases {
        let found = credential(headers.iter().copied(), *query, *places);
        let found = found.as_ref().map(|found| (found.source(), found.as_str())).map_err(|outcome| *outcome);
        assert_eq!(found, *expected, "{headers:?} {query:?}");
    }
}

#[test]
fn the_route_names_the_header() {
    let headers: [(&str, &[u8]); 2] = [("x-orders-key", b"tok"), ("x-api-key", b"other")];
    let places = Places::usual("X-Orders-Key");
    assert_eq!(credential(headers, None, places).unwrap().as_str(), "tok");
    assert_eq!(credential([headers[1]], None, places).err(), Some(Outcome::Missing));
}

#[test]
fn a_credential_is_not_shown() {
    let shown =
        format!("{:?}", credential([("x-api-key", &b"sesame"[..])], None, Places::usual("x-api-key")));
    assert_eq!(shown, "Ok(Credential(ApiKey, [redacted]))");
}

#[test]
fn addresses() {
    for (text, expected) in [
        ("10.0.0.1", Some("10.0.0.1")),
        (" 10.0.0.1\t", Some("10.0.0.1")),
        ("10.0.0.1:8080", Some("10.0.0.1")),
        ("2001:db8::1", Some("2001:db8::1")),
        ("[2001:db8::1]", Some("2001:db8::1")),
        ("[2001:db8::1]:443", Some("2001:db8::1")),
        ("\"[2001:db8::1]:443\"", Some("2001:db8::1")),
        ("::ffff:10.0.0.1", Some("10.0.0.1")),
        ("", None),
        ("unknown", None),
        ("_hidden", None),
        ("10.0.0", None),
        ("10.0.0.1:x", None),
        ("[10.0.0.1", None),
        ("localhost:80", None),
    ] {
        assert_eq!(address(text), expected.map(|text| text.parse().unwrap()), "{text}");
    }
}

#[test]
fn the_trusted_proxies_count_from_the_right() {
    let found = |values: &[&str], trusted| {
        let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
        forwarded(values.into_iter(), trusted).map(|address| address.to_string())
    };
    let some = |text: &str| Some(text.to_owned());
    let chain = ["1.1.1.1, 2.2.2.2", "3.3.3.3"];
    assert_eq!(found(&chain, 0), some("3.3.3.3"));
    assert_eq!(found(&chain, 1), some("2.2.2.2"));
    assert_eq!(found(&chain, 2), some("1.1.1.1"));
    assert_eq!(found(&chain, 9), some("1.1.1.1"), "the first, when there are fewer");
    assert_eq!(found(&chain, usize::MAX), some("1.1.1.1"));
    assert_eq!(found(&["6.6.6.6, garbage"], 0), None, "never one further left than asked for");
    assert_eq!(found(&["6.6.6.6,"], 0), None);
    assert_eq!(found(&[], 0), None);
    assert_eq!(found(&[""], 3), None);
}

#[test]
fn callers_are_legible_and_short() {
    let agent = "x".repeat(500);
    let found = caller(None, "spiffe://a/b\r\nc", Some(agent.as_bytes()));
    assert_eq!((found.principal, found.user_agent.len()), ("spiffe://a/b", MAX_USER_AGENT));
    assert_eq!(caller(None, "", Some("curl/8 ü".as_bytes())).user_agent, "curl/8 ");
    assert_eq!(caller(None, "", None).user_agent, "");
}

proptest! {
    #[test]
    fn any_headers_are_a_credential_or_an_outcome(
        headers in prop::collection::vec(
            (prop_oneof!["authorization", "Authorization", "x-api-key", ".{0,8}"],
             prop_oneof![
                 prop::collection::vec(any::<u8>(), 0..40),
                 "(?i)(bearer|basic) [ -~]{0,40}".prop_map(String::into_bytes),
             ]),
            0..4,
        ),
        trusted in any::<usize>(),
    ) {
        let pairs = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let all = Places {
            query: Some("token"), cookie: Some("token"), websocket: true, ..Places::usual("x-api-key")
        };
        let query = headers.first().map(|(name, _)| name.as_str());
        prop_assert!(credential(pairs.clone(), query, all).is_ok_and(|found| !found.as_str().is_empty())
            || credential(pairs.clone(), query, all).is_err());
        match credential(pairs, None, Places::usual("x-api-key")) {
            Ok(found) => {
                prop_assert!(!found.as_str().is_empty());
                prop_assert!(found.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
            }
            Err(outcome) => prop_assert!(matches!(
                outcome,
                Outcome::Missing | Outcome::Conflicting | Outcome::Malformed
            )),
        }
        let values = headers.iter().map(|(_, value)| value.as_slice());
        let _ = forwarded(values, trusted);
        for (name, value) in &headers {
            let found = caller(address(name), name, Some(value));
            prop_assert!(found.user_agent.len() <= MAX_USER_AGENT && found.principal.len() <= MAX_PRINCIPAL);
        }
    }
}
