use super::*;
use proptest::prelude::*;

/// Audiences, scopes, header, challenge as one line.
fn shown(demand: Result<Demand<'_>, Outcome>) -> String {
    match demand {
        Ok(demand) => {
            let (audiences, scopes): (Vec<_>, Vec<_>) =
                (demand.audiences().collect(), demand.scopes().collect());
            let basic = if demand.offers_basic() { " basic" } else { "" };
            format!("{} | {} | {}{basic}", audiences.join(" "), scopes.join(" "), demand.header())
        }
        Err(outcome) => outcome.as_str().to_owned(),
    }
}

#[test]
fn queries() {
    for (query, expected) in [
        ("", " |  | x-api-key"),
        ("audience=orders", "orders |  | x-api-key"),
        (
            "audience=orders&scope=orders:read&scope=orders:write",
            "orders | orders:read orders:write | x-api-key",
        ),
        ("audience=a&audience=b", "a b |  | x-api-key"),
        ("scope=a&scope=a", " | a a | x-api-key"),
        ("header=X-Orders-Key&challenge=basic", " |  | X-Orders-Key basic"),
        ("scope=orders%3Aread&%73cope=a%2fb", " | orders:read a/b | x-api-key"),
    ] {
        assert_eq!(shown(Demand::from_query(query)), expected, "{query}");
    }
}

#[test]
fn queries_that_make_no_sense() {
    for query in [
        "scop=orders:read",
        "Scope=orders:read",
        "scope",
        "scope=",
        "=x",
        "scope=orders:read&x",
        "scope=a b",
        "scope=a+b",
        "scope=a%20b",
        "scope=a%2",
        "scope=a%",
        "scope=%zz",
        "scope=%ff",
        "scope=a,b",
        "scope=\"a\"",
        "scope=ä",
        "scope=a;audience=b",
        "audience=a#b",
        "header=",
        "header=x y",
        "header=x:y",
        "header=Authorization",
        "header=X-Tokenward-Token",
        "header=X-Forwarded-For",
        "header=a&header=b",
        "header=Cookie",
        "header=host",
        "header=X-Original-URI",
        "source=",
        "source=everything",
        "source=header&source=header",
        "source=header,query",
        "query=access_token",
        "source=header&query=x",
        "source=query&header=x-key",
        "source=query&query=a%20b",
        "source=query&query=a&query=b",
        "source=cookie&cookie=a%3D",
        "source=header&challenge=basic",
        "challenge=digest",
        "challenge=",
        "path=/x",
        // Whatever shrinks a demand elsewhere: fragments, separators of other dialects, ends of strings, pairs that lost
        // what they were to hold, a second question mark, the client's own variables.
        "scope=a#&scope=b",
        "scope=a@&scope=b",
        "scope=a%23&scope=b",
        "#scope=a",
        "scope=a;scope=b",
        "scope=a%26scope=b",
        "scope%3Da",
        "scope=a%00&scope=b",
        "scope=a\0",
        "scope=a%0a&scope=b",
        "scope=a%0d%0ascope=b",
        "scope=a%2",
        "scope=a%u0062",
        "scope=a%C3%A4",
        "scope=%E2%80%8Ba",
        "scope=+a",
        "scope=a?scope=b",
        "?scope=a",
        "scope=a&",
        "&scope=a",
        "scope=a&&scope=b",
        "&",
        "&&",
        "=",
        "scope=a&=",
        "scope=a&scope=",
        "scope=a=b",
        "scope[]=a",
        "scopes=a",
        "SCOPE=a",
        "scope =a",
        "challenge=basic&challenge=",
        "challenge=Basic",
        "header=x-key&header=X-Key",
        "header=x%0a",
        "header=x-key@",
    ] {
        assert_eq!(shown(Demand::from_query(query)), "Misrouted", "{query}");
    }
    assert_eq!(shown(Demand::from_url(Some(""))), "Misrouted", "a question mark with nothing behind it");
    assert_eq!(shown(Demand::from_url(None)), " |  | x-api-key");
    let long = format!("scope={}", "x".repeat(129));
    assert_eq!(shown(Demand::from_query(&long)), "Misrouted");
    let many = vec!["scope=x"; MAX_WORDS + 1].join("&");
    assert_eq!(shown(Demand::from_query(&many)), "Misrouted");
    assert!(Demand::from_query(&many[8..]).is_ok());
}

#[test]
fn what_envoy_appends_is_the_clients() {
    for (path, query, expected) in [
        ("/authz/envoy", "audience=orders&scope=a&path=/orders/1", "orders | a | x-api-key"),
        ("/authz/envoy", "audience=orders&path=/orders/1?scope=b&audience=c&x=%zz", "orders |  | x-api-key"),
        ("/authz/envoy", "audience=orders&path=/&path=/&header=x", "orders |  | x-api-key"),
        ("/authz/envoy", "path=/orders/1&scope=b", " |  | x-api-key"),
        ("/authz/envoy", "audience=orders&path=", "orders |  | x-api-key"),
        ("/authz/envoy/orders/1", "scope=b&x=%zz", " |  | x-api-key"),
        // `path_override`: nothing is appended.
        ("/authz/envoy", "audience=orders&scope=a&header=x-k", "orders | a | x-k"),
        ("/authz/envoy", "", "Misrouted"),
        ("/authz/envoy", "audience=orders&&path=/", "Misrouted"),
        ("/authz/envoy", "audience=orders&#path=/", "Misrouted"),
        ("/authz/envoy", "audience=orders&p%61th=/x", "Misrouted"),
        // A prefix whose `path=` was forgotten demands what no token has.
        ("/authz/envoy", "audience=orders/1", "orders/1 |  | x-api-key"),
        ("/authz/envoy", "audience=orders/1?scope=a", "Misrouted"),
        ("/authz/envoy", "header=x-k/1", "Misrouted"),
        ("/authz/envoy", "scop=a&path=/x", "Misrouted"),
        ("/authz/envoy", "scope=a&Path=/x", "Misrouted"),
        // As a path, for configurations that allow no question mark.
        ("/authz/envoy/audience=orders&scope=a&path=/orders/1", "scope=b", "orders | a | x-api-key"),
        ("/authz/envoy/path=/orders/1", "", " |  | x-api-key"),
        // There, too, a forgotten `path=` must not mean that nothing is demanded, nor a slash in a word.
        ("/authz/envoy/audience=orders/1", "", "Misrouted"),
        ("/authz/envoy/audience=orders/1&path=/", "", "Misrouted"),
        ("/authz/envoy/x&scope=a/1", "", "Misrouted"),
        ("/authz/envoy/audience=orders@&path=/", "", "Misrouted"),
        ("/authz/envoy/w=200,h=100/cat.png", "", " |  | x-api-key"),
        ("/authz/envoy/scop=a&path=/", "", "Misrouted"),
        ("/authz/envoy/header=x-k&path=/", "", "Misrouted"),
        ("/authz/envoyx", "", "Misrouted"),
        ("/authz/nginx", "path=", "Misrouted"),
    ] {
        assert_eq!(shown(Demand::from_envoy(path, Some(query))), expected, "{path}?{query}");
    }
    assert_eq!(shown(Demand::from_envoy("/authz/envoy", None)), " |  | x-api-key");
    assert_eq!(shown(Demand::from_envoy("/authz/envoy/", None)), " |  | x-api-key");
}

#[test]
fn extensions() {
    for (extensions, expected) in [
        (&[][..], " |  | x-api-key"),
        (&[("audience", "orders"), ("scope", "a b")], "orders | a b | x-api-key"),
        (&[("audience", " x  y "), ("header", "x-orders-key")], "x y |  | x-orders-key"),
        (&[("challenge", "basic")], " |  | x-api-key basic"),
        (&[("scope", "")], "Misrouted"),
        (&[("scope", "  ")], "Misrouted"),
        (&[("scope", "a,b")], "Misrouted"),
        (&[("scope", "a%20b")], "Misrouted"),
        (&[("scopes", "a")], "Misrouted"),
        (&[("header", "authorization")], "Misrouted"),
    ] {
        assert_eq!(shown(Demand::from_extensions(extensions.iter().copied())), expected, "{extensions:?}");
    }
}

#[test]
fn plain_values_are_not_copied() {
    let demand = Demand::from_query("scope=a&scope=b%62&audience=c").unwrap();
    assert!(matches!(demand.scopes[0], Cow::Borrowed("a")));
    assert!(matches!(&demand.scopes[1], Cow::Owned(word) if word == "bb"));
    assert!(matches!(demand.audiences[0], Cow::Borrowed("c")));
}

proptest! {
    #[test]
    fn any_text_is_a_demand_or_misrouted(query in ".{0,60}", path in "(/authz/envoy)?.{0,20}") {
        for demand in [
            Demand::from_query(&query),
            Demand::from_envoy(&path, Some(&query)),
            Demand::from_extensions([("scope", query.as_str())]),
        ] {
            prop_assert!(matches!(demand, Ok(_) | Err(Outcome::Misrouted)));
        }
    }

    /// Whatever is put into a demand, at whichever place: it demands as much as before, or nobody passes.
    #[test]
    fn no_byte_takes_anything_away(at in 0_usize..=29, byte in "[ -~]|%[0-9A-Fa-f]{2}|[\\x00-\\x1fäß\u{200b}]") {
        let whole = "audience=orders&scope=a&scope=b";
        let query = format!("{}{byte}{}", &whole[..at], &whole[at..]);
        if let Ok(demand) = Demand::from_url(Some(&query)) {
            prop_assert_eq!(demand.audiences().count(), 1, "{}", query);
            let scopes = demand.scopes().count();
            // Of another word, or of one pair made two by `&scope=`: never of fewer.
            prop_assert_eq!(scopes, 2, "{}", query);
        }
    }

    /// A client can add nothing to what the route demands, and take nothing away.
    #[test]
    fn what_the_client_appends_changes_nothing(client in "/[!-~]{0,40}") {
        let query = format!("audience=orders&scope=a&path={client}");
        let path = format!("{ENVOY_PATH}/audience=orders&scope=a&path={client}");
        let demand = Demand::from_envoy(ENVOY_PATH, Some(&query)).unwrap();
        prop_assert_eq!(&demand, &Demand::from_query("audience=orders&scope=a").unwrap());
        prop_assert_eq!(&Demand::from_envoy(&path, None).unwrap(), &demand);
    }
}

#[test]
fn a_route_reads_the_usual_two_places_or_those_that_it_names() {
    let usual = Places::usual("x-api-key");
    let nowhere = Places { authorization: false, header: None, ..usual };
    for (query, expected) in [
        ("audience=a", usual),
        ("source=authorization&source=header", usual),
        ("source=authorization&challenge=basic", Places { authorization: true, ..nowhere }),
        ("source=header", Places { header: Some("x-api-key"), ..nowhere }),
        ("source=header&header=X-Key", Places { header: Some("X-Key"), ..nowhere }),
        ("source=query", Places { query: Some("access_token"), ..nowhere }),
        (
            "query=t&source=query&source=cookie",
            Places { query: Some("t"), cookie: Some("access_token"), ..nowhere },
        ),
        ("source=cookie&cookie=__Host-token", Places { cookie: Some("__Host-token"), ..nowhere }),
        ("source=websocket&source=authorization", Places { authorization: true, websocket: true, ..nowhere }),
    ] {
        assert_eq!(Demand::from_query(query).as_ref().map(Demand::places), Ok(expected), "{query}");
        let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap());
        assert_eq!(Demand::from_extensions(pairs).as_ref().map(Demand::places), Ok(expected), "{query}");
    }
    // Below a bare prefix the client would choose.
    for pairs in ["source=query", "source=header", "source=cookie&cookie=t"] {
        let path = format!("/authz/envoy/{pairs}&path=/x");
        assert_eq!(shown(Demand::from_envoy(&path, None)), "Misrouted", "{path}");
    }
    for (query, expected) in [
        ("audience=a&path=/orders?access_token=t&path=/x?y", Some("access_token=t&path=/x?y")),
        ("path=/orders?a=b", Some("a=b")),
        ("audience=a&path=/orders", None),
        ("audience=a?b", None),
    ] {
        assert_eq!(Demand::clients_query(Some(query)), expected, "{query}");
    }
}

#[test]
fn what_does_not_fit_is_named_in_our_own_words() {
    for (query, expected) in [
        ("audienc=orders", "an unknown key"),
        ("access_token=secret", "an unknown key"),
        ("audience=orders&scope=", "scope"),
        ("audience=orders%20read", "audience"),
        ("header=authorization", "header"),
        ("challenge=digest", "challenge"),
        ("audience", "audience"),
        ("header=a&header=b", "more than a demand can hold"),
        ("scope=a@&audience=b", "scope"),
        ("audience=a&", "an empty key"),
        ("=a", "an empty key"),
        ("source=query&query=t&scope=", "scope"),
    ] {
        assert!(Demand::from_query(query).is_err(), "{query}");
        assert_eq!(Demand::misfit_in_query(query), expected, "{query}");
    }
    assert_eq!(Demand::misfit_in_extensions([("audience", "orders"), ("scope", " ")]), "scope");
    assert_eq!(Demand::misfit_in_extensions([("scopes", "secret")]), "an unknown key");
}
