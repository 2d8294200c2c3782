use super::*;

const NAMES: Names<'_> = Names {
    token: "twd_id_secret",
    id: "id",
    name: "orders",
    namespace: "shop",
    owner: "Payments",
    contact: "",
};

fn rendered(source: &str) -> Result<String, TemplateError> {
    let templates = BTreeMap::from([("k".to_owned(), source.to_owned())]);
    render_all(&templates, &NAMES).map(|mut all| std::mem::take(&mut **all.get_mut("k").unwrap()))
}

fn message(source: &str) -> String {
    let message = rendered(source).unwrap_err().to_string();
    assert!(
        message.starts_with("spec.secret.template[\"k\"], line ") && !message.contains("twd_id"),
        "{message}"
    );
    message
}

/// What each template comes to, as Jinja has it.
const RENDERED: &[(&str, &str)] = &[
    // Text is taken as it is.
    ("", ""),
    ("\n", "\n"),
    ("no expression\r\n\n", "no expression\r\n\n"),
    ("{ token } }} { { } %} #} $", "{ token } }} { { } %} #} $"),
    (
        "machine a\n  login {{ name }}\n  password {{ token }}\n",
        "machine a\n  login orders\n  password twd_id_secret\n",
    ),
    ("{\"p\": \"{{ token }}\"}", "{\"p\": \"twd_id_secret\"}"),
    ("ü{{ id }}→{{ id }}…", "üid→id…"),
    // Names.
    ("{{token}}{{ id }}{{\tname\n}}", "twd_id_secretidorders"),
    ("{{ namespace }}/{{ owner }}/{{ contact }}", "shop/Payments/"),
    // Literals and joining.
    ("{{ 'a' ~ \"b\" ~ id ~ '' }}", "abid"),
    ("{{ '}}' ~ '{{' ~ ')' ~ '|' }}", "}}{{)|"),
    (r#"{{ 'q\'\"\\\n\r\t' }}"#, "q'\"\\\n\r\t"),
    ("{{ 'ü→' }}", "ü→"),
    ("{{ 'a\nb' }}", "a\nb"),
    // Filters bind tighter than ~, and apply from left to right.
    ("{{ ('u:' ~ token) | b64encode }}", "dTp0d2RfaWRfc2VjcmV0"),
    ("{{ 'u:' ~ token | b64encode }}", "u:dHdkX2lkX3NlY3JldA=="),
    ("{{ id | upper ~ id }}", "IDid"),
    ("{{ id ~ id | upper }}", "idID"),
    ("{{ (id ~ id) | upper ~ id }}", "IDIDid"),
    ("{{ ((id) ~ (('x' ~ name) | upper)) }}", "idXORDERS"),
    ("{{ ('a' ~ ('b' ~ id | upper) | b64encode) | lower }}", "aykle"),
    ("{{ owner|lower|upper|lower }}", "payments"),
    (
        "{{ '' | b64encode }}{{ 'a' | b64encode }}{{ 'ab' | b64encode }}{{ 'abc' | b64encode }}",
        "YQ==YWI=YWJj",
    ),
    ("{{ ' \n\u{a0}a b\t ' | trim }}", "a b"),
    ("{{ 'Straße ıİ' | upper }}{{ 'ÄÖ ΑΒ' | lower }}", "STRASSE Iİäö αβ"),
    ("{{ name | replace('r', 'RR') | replace(\"RR\", \"\") }}", "odes"),
    ("{{ 'aaa' | replace('aa', 'b') }}", "ba"),
    ("{{ 'ab' | replace('', '-') }}", "-a-b-"),
    ("{{ name | replace ( 'o' , 'O' ) | b64encode }}", "T3JkZXJz"),
    // A minus takes white space away, in the text only.
    ("a \n{{- id -}}\n b {{ id -}} ", "aidb id"),
    (" {{- ' ' ~ id ~ ' ' -}} ", " id "),
    ("{{ id -}} {{- id }}", "idid"),
];

#[test]
fn what_is_promised_renders() {
    for (source, wanted) in RENDERED {
        assert_eq!(rendered(source).as_deref(), Ok(*wanted), "{source}");
    }
}

/// What is not understood, where that is said to be, and what is said about it.
const REFUSED: &[(&str, (usize, usize), &str)] = &[
    // Names.
    ("{{ tokn }}", (1, 4), "\"tokn\" is not known; names are token, id, name, namespace, owner and contact"),
    ("a\nü {{ Token }}", (2, 6), "\"Token\" is not known"),
    ("{{ .token }}", (1, 4), "write {{ token }}"),
    ("{{ .namespace | upper }}", (1, 4), "write {{ namespace }}"),
    ("{{ .Values.token }}", (1, 4), "\".Values.token\" is a path, as Helm and Go have them"),
    ("{{ . }}", (1, 4), "\".\" is a path"),
    ("{{ token.value }}", (1, 4), "\"token.value\" is a path"),
    ("{{ token.x.y.z }}", (1, 4), "write {{ token }}"),
    ("{{ $token }}", (1, 4), "'$' is not understood"),
    ("{{ tökén }}", (1, 4), "\"t\" is not known"),
    ("{{ true }}", (1, 4), "\"true\" is not known"),
    // Other expressions of Jinja, and of Helm.
    ("{{ token() }}", (1, 4), "\"token\" cannot be called"),
    ("{{ range(9) }}", (1, 4), "\"range\" is not known"),
    ("{{ 1 }}", (1, 4), "'1' is not understood"),
    ("{{ - 1 }}", (1, 4), "'-' is not understood"),
    ("{{ token - 1 }}", (1, 10), "'-' is not understood"),
    ("{{ 'x' * 9 }}", (1, 8), "'*' is not understood"),
    ("{{ token + id }}", (1, 10), "'+' is not understood"),
    ("{{ token == id }}", (1, 10), "'=' is not understood"),
    ("{{ [token] }}", (1, 4), "'[' is not understood"),
    ("{{ token[0] }}", (1, 9), "'[' is not understood"),
    ("{{{ token }}}", (1, 3), "'{' is not understood"),
    ("{{ {'a': 1} }}", (1, 4), "'{' is not understood"),
    ("{{ (token, id) }}", (1, 10), "',' is not understood"),
    ("{{ token if id else name }}", (1, 10), "\"if\" follows without anything between"),
    ("{{ not token }}", (1, 4), "\"not\" is not known"),
    ("{{ token is defined }}", (1, 10), "\"is\" follows"),
    ("{{ 'a' 'b' }}", (1, 8), "write ~ to join"),
    ("{{ token 'b' }}", (1, 10), "write ~ to join"),
    ("{{ token | quote }}", (1, 12), "\"quote\" is not a filter; filters are b64encode, lower,"),
    ("{{ token | b64enc }}", (1, 12), "\"b64enc\" is not a filter"),
    ("{{ token | replace \"a\" \"b\" }}", (1, 20), "write | replace('old', 'new')"),
    ("{{ token | replace('a', 'b', 1) }}", (1, 28), "replace takes two texts"),
    ("{{ token | replace(id, 'b') }}", (1, 20), "replace takes two texts"),
    ("{{ token | replace }}", (1, 20), "replace takes two texts"),
    ("{{ token | upper() }}", (1, 17), "upper takes nothing in parentheses"),
    ("{{ token | trim('x') }}", (1, 16), "trim takes nothing in parentheses"),
    ("{{ token | }}", (1, 12), "the name of a filter is missing"),
    ("{{ | upper }}", (1, 4), "a name or a text in quotes is missing"),
    ("{% set a = token %}", (1, 1), "no {% statements %}"),
    ("x {# no #}", (1, 3), "no {# comments #}"),
    ("{{ '{%' }}", (1, 5), "no {% statements %}"),
    // What is left open.
    ("{{ token", (1, 1), "this {{ is not closed"),
    ("{{ token }\nand text", (1, 1), "this {{ is not closed"),
    ("{{ id }} {{ token } }", (1, 10), "this {{ is not closed"),
    ("{{", (1, 1), "this {{ is not closed"),
    ("{{ 'token }}", (1, 4), "write ' behind it"),
    ("{{ 'a\\ }}", (1, 6), "a backslash"),
    ("{{ 'a\\' }}", (1, 4), "write ' behind it"),
    ("{{ '\\x41' }}", (1, 5), "write \\\\ for a backslash itself"),
    ("{{ (token }}", (1, 4), "this parenthesis is not closed"),
    ("{{ token) }}", (1, 9), "closes nothing"),
    ("{{ () }}", (1, 5), "is missing here"),
    ("{{ }}", (1, 4), "is missing here"),
    ("{{}}", (1, 3), "is missing here"),
    ("{{ token ~ }}", (1, 12), "is missing here"),
    ("{{ ~ token }}", (1, 4), "is missing here"),
];

#[test]
fn what_is_not_understood_is_named_with_its_place() {
    for (source, (line, column), said) in REFUSED {
        let message = message(source);
        let place = format!("spec.secret.template[\"k\"], line {line}, column {column}: ");
        assert!(message.starts_with(&place) && message.contains(said), "{source}\n{place}…{said}\n{message}");
    }
}

#[test]
fn a_long_word_is_not_repeated_in_full() {
    assert!(message(&format!("{{{{ {} }}}}", "x".repeat(8_000))).len() < 300);
    assert!(message(&format!("{{{{ .{} }}}}", "x".repeat(8_000))).len() < 300);
}

#[test]
fn the_keys_of_a_secret_share_one_limit() {
    let full = "{{ token }}".repeat(1_000);
    let keys = |count: usize| (0..count).map(|n| (format!("k{n}"), full.clone())).collect();
    assert!(render_all(&keys(16), &NAMES).is_ok());
    let long = Names { token: &"x".repeat(90), ..NAMES };
    assert_eq!(render_all(&keys(16), &long).map(drop), Err(TemplateError::TooLarge));
    // What shrinks again has to fit on the way as well.
    let wide = "{{ ('a' | replace('a', 'X') ~ token) | replace('X', 'Y') }}".replace('X', &"b".repeat(4_000));
    assert_eq!(render(&wide, &NAMES, 5_000, &mut Work::of(&wide)).map(|text| text.len()), Ok(14));
    assert_eq!(render(&wide, &NAMES, 3_000, &mut Work::of(&wide)).map(drop), Err((8, Fault::TooLarge)));
}
