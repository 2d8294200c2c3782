//! Whatever anybody declares costs work and memory in proportion to it.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// The longest template that the API server accepts, in bytes of ASCII.
const LONGEST: usize = 8_192;
/// A thread that evaluates a template has less room than this nowhere.
const STACK: usize = 64 * 1024;

fn names(letter: char) -> [String; 6] {
    [77, 10, 63, 63, 63, 253].map(|length| letter.to_string().repeat(length))
}

fn with_names<T>(values: &[String; 6], body: impl FnOnce(&Names<'_>) -> T) -> T {
    let [token, id, name, namespace, owner, contact] = values;
    body(&Names { token, id, name, namespace, owner, contact })
}

/// Renders, and checks what it took.
fn within_bounds(source: &str) -> Result<String, Fault> {
    let mut work = Work::of(source);
    let rendered = with_names(&names('a'), |names| render(source, names, MAX_RENDERED, &mut work));
    let filters = 16 * 1024 + 32 * source.len();
    // When it fails, the result is what was on the page.
    let result = rendered.as_ref().map_or(MAX_RENDERED, |text| text.len());
    let bound = source.len() + 3 * result + 4 * filters;
    assert!(
        work.done() <= bound,
        "{} bytes of work for {} of template: {source:.200}",
        work.done(),
        source.len()
    );
    assert!(rendered.as_ref().map_or(0, |text| text.capacity()) <= MAX_RENDERED);
    rendered.map(|mut text| std::mem::take(&mut *text)).map_err(|(_, fault)| fault)
}

/// Templates that do as much harm as their kind can, each as long as may be.
fn attacks() -> Vec<(&'static str, String)> {
    let filled = |head: &str, body: &str, tail: &str| {
        let times = (LONGEST - head.len() - tail.len()) / body.len();
        format!("{head}{}{tail}", body.repeat(times))
    };
    let long = "a".repeat(2_000);
    vec![
        ("lists of lists", "{{ ([([([token]*1000)]*1000)]*1000) ~ '' }}".into()),
        ("lists compared", "{{ [[[[[1]*1000]*1000]*1000]*1000] == [[[[[1]*1000]*1000]*1000]*1000] }}".into()),
        ("minus signs", filled("{{ ", "-", "1 }}")),
        ("not", filled("{{ ", "not ", "token }}")),
        ("parentheses", filled("{{ ", "(", "}}")),
        ("closed parentheses", format!("{{{{ {}token{} }}}}", "(".repeat(4_000), ")".repeat(4_000))),
        ("filters in parentheses", filled("{{ ((((((((token", "|trim)~(token", "))))))))}}")),
        ("brackets", filled("{{ ", "[", "}}")),
        ("braces", filled("", "{", "")),
        ("base64 of base64", filled("{{ token", "|b64encode", " }}")),
        ("replace by more", filled("{{ 'a'", "|replace('a','aaaaaaaaaaaaaaaa')", " }}")),
        (
            "replace by much",
            format!(
                "{{{{ 'a' | replace('a', '{long}') | replace('a', '{long}') | replace('a', '{long}') }}}}"
            ),
        ),
        ("replace nothing", filled("{{ token", "|replace('','a')", " }}")),
        ("many filters on a long text", format!("{{{{ '{}'{} }}}}", "a".repeat(4_000), "|trim".repeat(800))),
        ("filters on all that was joined", filled("{{ (contact", "~contact)|trim~(contact", ") }}")),
        ("a long chain", filled("{{ id", "~id", " }}")),
        ("many names", filled("", "{{contact}}", "")),
        ("upper that grows", filled("{{ 'ΐΐΐΐΐΐΐΐ'", "|upper|lower", " }}")),
        ("quotes", filled("{{ ", "''~", "'' }}")),
        ("backslashes", filled("{{ '", "\\\\", "' }}")),
        ("open literals", filled("", "{{'}}", "")),
        ("expressions that are not closed", filled("", "{{token}", "")),
        ("white space", filled("{{", " \n", "token}}")),
        ("white space that goes", filled("", " {{-''-}} ", "")),
        ("paths", filled("{{ ", ".a", " }}")),
    ]
}

#[test]
fn no_template_takes_more_than_its_share() {
    let attacks = std::thread::Builder::new().stack_size(STACK).spawn(|| {
        for (kind, source) in attacks() {
            assert!(source.len() <= LONGEST, "{kind}: {}", source.len());
            // Some render and some are refused; either takes little.
            drop((kind, within_bounds(&source)));
        }
    });
    attacks.unwrap().join().unwrap();
}

#[test]
fn attacks_are_refused_for_what_they_are() {
    let refused = |kind: &str| {
        let attack = attacks().into_iter().find(|(name, _)| *name == kind);
        within_bounds(&attack.unwrap().1).unwrap_err()
    };
    assert_eq!(refused("lists of lists"), Fault::Unexpected('['));
    assert_eq!(refused("lists compared"), Fault::Unexpected('['));
    assert_eq!(refused("minus signs"), Fault::Unexpected('-'));
    assert_eq!(refused("parentheses"), Fault::Missing);
    for kind in ["base64 of base64", "replace by more", "replace by much", "many filters on a long text"] {
        assert_eq!(refused(kind), Fault::TooMuchWork, "{kind}");
    }
}

fn template() -> impl Strategy<Value = String> {
    let fragment = select(vec![
        "{{",
        "}}",
        "{{ ",
        " }}",
        "{{-",
        "-}}",
        "(",
        ")",
        "~",
        "|",
        "'",
        "\"",
        "\\",
        " ",
        "\n",
        ".",
        "-",
        "[",
        "1",
        "token",
        "id",
        "contact",
        "nobody",
        "'text'",
        "\"ü\"",
        "'ΐΐ'",
        "{{ token }}",
        "{{ (id ~ 'a')|upper }}",
        "|b64encode",
        "|lower",
        "|trim",
        "|upper",
        "|replace('a','bb')",
        "|replace('b','aaaaaaaaaaaaaaaaaaaaaaaa')",
        "|replace('','aa')",
        "~token",
        "~(token",
        "text ",
        "{%",
        "{#",
        "{",
    ]);
    // Mostly well-formed: else the first fault hides everything behind it.
    let part = select(vec!["token", "id", "contact", "'aa'", "(id ~ 'b')", "('ΐ' ~ contact)"]);
    let filter = select(vec![
        "|b64encode",
        "|lower",
        "|upper|trim",
        "|replace('a','bb')",
        "|replace('b','aaaaaaaa')",
        "|replace('','aa')",
    ]);
    let well_formed =
        prop::collection::vec((part, prop::collection::vec(filter, 0..40)), 1..20).prop_map(|parts| {
            let parts: Vec<_> =
                parts.into_iter().map(|(part, filters)| format!("{part}{}", filters.concat())).collect();
            format!("{{{{ ({}) | trim }}}}", parts.join(" ~ "))
        });
    let wild = prop::collection::vec(fragment, 0..400).prop_map(|all| all.concat());
    let mixed = prop::collection::vec(prop_oneof![4 => well_formed.boxed(), 1 => wild.boxed()], 1..6);
    mixed.prop_map(|all| {
        let mut text = all.concat();
        text.truncate(text.floor_char_boundary(LONGEST));
        text
    })
}

proptest! {
    #[test]
    fn work_is_in_proportion_to_template_and_result(source in template()) {
        let _ = within_bounds(&source);
    }

    /// Else a message could hold a piece of a token.
    #[test]
    fn what_is_said_does_not_depend_on_the_values(source in template()) {
        let fault = |letter: char| {
            with_names(&names(letter), |names| render(&source, names, MAX_RENDERED, &mut Work::of(&source)).map(drop))
        };
        let (one, other) = (fault('x'), fault('y'));
        let by_size = |fault: &Result<(), (usize, Fault)>| {
            matches!(fault, Err((_, Fault::TooLarge | Fault::TooMuchWork)))
        };
        prop_assert!(one == other || by_size(&one) || by_size(&other), "{one:?} {other:?}");
    }

    #[test]
    fn text_without_expressions_is_taken_as_it_is(source in "[^{]{0,200}") {
        prop_assert_eq!(within_bounds(&source), Ok(source));
    }
}
