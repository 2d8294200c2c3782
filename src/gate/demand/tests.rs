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
        ("audience=a&audience=b&&", "a b |  | x-api-key"),
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
        "challenge=digest",
        "challenge=",
        "path=/x",
    ] {
        assert_eq!(shown(Demand::from_query(query)), "Misrouted", "{query}");
    }
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
        ("/authz/envoy", "", " |  | x-api-key"),
        // A prefix whose `path=` was forgotten demands what no token has.
        ("/authz/envoy", "audience=orders/1", "orders/1 |  | x-api-key"),
        ("/authz/envoy", "audience=orders/1?scope=a", "Misrouted"),
        ("/authz/envoy", "header=x-k/1", "Misrouted"),
        ("/authz/envoy", "scop=a&path=/x", "Misrouted"),
        ("/authz/envoy", "scope=a&Path=/x", "Misrouted"),
        // As a path, for configurations that allow no question mark.
        ("/authz/envoy/audience=orders&scope=a&path=/orders/1", "scope=b", "orders | a | x-api-key"),
        ("/authz/envoy/path=/orders/1", "", " |  | x-api-key"),
        ("/authz/envoy/audience=orders/1&path=/", "", " |  | x-api-key"),
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
    ] {
        assert!(Demand::from_query(query).is_err(), "{query}");
        assert_eq!(Demand::misfit_in_query(query), expected, "{query}");
    }
    assert_eq!(Demand::misfit_in_extensions([("audience", "orders"), ("scope", " ")]), "scope");
    assert_eq!(Demand::misfit_in_extensions([("scopes", "secret")]), "an unknown key");
}
