//! `spec.secret.template`: extra keys of the Secret, rendered with the token.
//!
//! Expressions only. A statement (`{% … %}`) could double a string thirty times in one line; with expressions alone the
//! memory a template can take is bounded by its length.

use std::collections::BTreeMap;
use std::io;

use base64::Engine as _;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, filters};
use zeroize::Zeroizing;

/// Most bytes that all rendered keys of a Secret may take together.
pub const MAX_RENDERED: usize = 256 * 1024;
/// Instructions of the engine that one template may take.
const FUEL: u64 = 50_000;

/// What a template may name.
pub struct Names<'a> {
    /// The whole token.
    pub token: &'a str,
    /// The credential's id.
    pub id: &'a str,
    /// The ApiToken's name.
    pub name: &'a str,
    /// The ApiToken's namespace.
    pub namespace: &'a str,
    /// The owner's name, or empty.
    pub owner: &'a str,
    /// The owner's contact, or empty.
    pub contact: &'a str,
}

/// Why a template does not render. Never carries what was rendered.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum TemplateError {
    /// The engine refused it.
    #[error("spec.secret.template[{key:?}]: {why}; names are token, id, name, namespace, owner and contact")]
    Invalid {
        /// The key of the template.
        key: String,
        /// What the engine said.
        why: String,
    },
    /// It holds a statement or a comment.
    #[error(
        "spec.secret.template[{key:?}]: write expressions such as {{{{ token }}}} only, no {{% statements %}}"
    )]
    Statement {
        /// The key of the template.
        key: String,
    },
    /// The results are too large together.
    #[error("spec.secret.template: the rendered keys are larger than {} KiB together: shorten them", MAX_RENDERED / 1024)]
    TooLarge,
}

/// Renders every template; the results are wiped on drop.
pub fn render_all(
    templates: &BTreeMap<String, String>,
    names: &Names<'_>,
) -> Result<BTreeMap<String, Zeroizing<String>>, TemplateError> {
    if templates.is_empty() {
        return Ok(BTreeMap::new());
    }
    let environment = environment();
    let mut left = MAX_RENDERED;
    templates
        .iter()
        .map(|(key, source)| {
            let text = render(&environment, key, source, names, left)?;
            left -= text.len();
            Ok((key.clone(), text))
        })
        .collect()
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // A file such as .netrc ends with a newline; the default syntax would drop it.
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_fuel(Some(FUEL));
    environment.add_filter("b64encode", |text: &str| base64::engine::general_purpose::STANDARD.encode(text));
    environment.add_filter("lower", filters::lower);
    environment.add_filter("replace", filters::replace);
    environment.add_filter("trim", filters::trim);
    environment.add_filter("upper", filters::upper);
    environment
}

fn render(
    environment: &Environment<'_>,
    key: &str,
    source: &str,
    names: &Names<'_>,
    limit: usize,
) -> Result<Zeroizing<String>, TemplateError> {
    if source.contains("{%") || source.contains("{#") {
        return Err(TemplateError::Statement { key: key.to_owned() });
    }
    let invalid = |error: Error| TemplateError::Invalid { key: key.to_owned(), why: explain(&error) };
    let template = environment.template_from_str(source).map_err(invalid)?;
    let mut output = Bounded { text: Zeroizing::new(Vec::new()), limit, overflowed: false };
    let rendered = template.render_captured_to(names_value(names), &mut output).map(drop);
    if output.overflowed {
        return Err(TemplateError::TooLarge);
    }
    rendered.map_err(invalid)?;
    String::from_utf8(std::mem::take(&mut *output.text)).map(Zeroizing::new).map_err(|_| {
        TemplateError::Invalid { key: key.to_owned(), why: "the result is not UTF-8".to_owned() }
    })
}

fn names_value(names: &Names<'_>) -> minijinja::Value {
    minijinja::Value::from_pairs([
        ("token", names.token),
        ("id", names.id),
        ("name", names.name),
        ("namespace", names.namespace),
        ("owner", names.owner),
        ("contact", names.contact),
    ])
}

/// The engine's words without the values that it saw.
fn explain(error: &Error) -> String {
    let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
    let detail = match error.kind() {
        // Details of these kinds quote the template's own text, which is no secret; others may quote a value.
        ErrorKind::SyntaxError
        | ErrorKind::UnknownFilter
        | ErrorKind::UnknownFunction
        | ErrorKind::UnknownTest => error.detail().map(|detail| format!(": {detail}")),
        _ => None,
    };
    format!("{}{line}{}", error.kind(), detail.unwrap_or_default())
}

struct Bounded {
    text: Zeroizing<Vec<u8>>,
    limit: usize,
    overflowed: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > self.limit {
            self.overflowed = true;
            return Err(io::Error::other("rendered text too large"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Names<'_> = Names {
        token: "twd_id_secret",
        id: "id",
        name: "orders",
        namespace: "shop",
        owner: "payments",
        contact: "",
    };

    fn rendered(source: &str) -> Result<String, TemplateError> {
        let templates = BTreeMap::from([("k".to_owned(), source.to_owned())]);
        render_all(&templates, &NAMES).map(|mut all| std::mem::take(&mut **all.get_mut("k").unwrap()))
    }

    #[test]
    fn renders_names_and_filters() {
        assert_eq!(
            rendered("login {{ name }} password {{ token }}\n").unwrap(),
            "login orders password twd_id_secret\n"
        );
        assert_eq!(rendered("{{ ('u:' ~ token) | b64encode }}").unwrap(), "dTp0d2RfaWRfc2VjcmV0");
        assert_eq!(rendered("{{ owner | upper }}{{ contact }}").unwrap(), "PAYMENTS");
    }

    #[test]
    fn unknown_names_are_errors_that_do_not_leak() {
        for source in [
            "{{ tokn }}",
            "{{ token.nope.more }}",
            "{{ token | nofilter }}",
            "{{ token",
            "{{ token + 1 }}",
            "{{ token() }}",
        ] {
            let message = rendered(source).unwrap_err().to_string();
            assert!(
                message.starts_with("spec.secret.template[\"k\"]") && !message.contains("twd_id"),
                "{message}"
            );
        }
    }

    #[test]
    fn statements_are_refused() {
        assert!(matches!(rendered("{% set a = token %}"), Err(TemplateError::Statement { .. })));
    }

    #[test]
    fn size_is_bounded() {
        assert_eq!(
            rendered("{{ 'x' * 90000 }}{{ 'x' * 90000 }}{{ 'x' * 90000 }}"),
            Err(TemplateError::TooLarge)
        );
    }
}
