//! `spec.secret.template`: extra keys of the Secret, rendered with the token.
//!
//! A template is text with expressions in it. What an expression may hold is listed here, and nothing else is understood:
//!
//! ```text
//! template   = { text | "{{" [ "-" ] expression [ "-" ] "}}" }          a "-" takes the white space beside it away
//! expression = part { "~" part }                                        "~" joins
//! part       = ( name | literal | "(" expression ")" ) { "|" filter }
//! name       = "token" | "id" | "name" | "namespace" | "owner" | "contact"
//! literal    = "'" … "'" | '"' … '"'                                    with \\ \' \" \n \r \t
//! filter     = "b64encode" | "lower" | "trim" | "upper" | "replace" "(" literal "," literal ")"
//! ```
//!
//! These are expressions as Jinja has them, with its precedence. Anybody who may declare an ApiToken writes them, so they are
//! read and evaluated in one pass without recursion, with work and memory linear in the template and its result:
//! [`Work`] counts it, and a property and a fuzz target hold it.

mod fault;
mod page;
#[cfg(test)]
mod properties;
mod reader;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use zeroize::Zeroizing;

pub use fault::Fault;
pub use page::Work;

/// Most bytes that all rendered keys of a Secret may take together.
pub const MAX_RENDERED: usize = 256 * 1024;

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

impl<'a> Names<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        Some(match name {
            "token" => self.token,
            "id" => self.id,
            "name" => self.name,
            "namespace" => self.namespace,
            "owner" => self.owner,
            "contact" => self.contact,
            _ => return None,
        })
    }
}

/// Why a template does not render. Never carries what was rendered.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Something in it is not understood.
    #[error("spec.secret.template[{key:?}], line {line}, column {column}: {fault}")]
    Invalid {
        /// The key of the template.
        key: String,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What is wrong there.
        fault: Fault,
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
    let mut left = MAX_RENDERED;
    templates
        .iter()
        .map(|(key, source)| {
            let text = render(source, names, left, &mut Work::of(source))
                .map_err(|(at, fault)| located(key, source, at, fault))?;
            left -= text.len();
            Ok((key.clone(), text))
        })
        .collect()
}

/// Renders one template into at most `limit` bytes; the result is wiped on drop.
///
/// # Errors
/// What is wrong, and at which byte of `source`.
pub fn render(
    source: &str,
    names: &Names<'_>,
    limit: usize,
    work: &mut Work,
) -> Result<Zeroizing<String>, (usize, Fault)> {
    reader::Reader::new(source, names, page::Page::new(limit, work)).read()
}

fn located(key: &str, source: &str, at: usize, fault: Fault) -> TemplateError {
    if fault == Fault::TooLarge {
        return TemplateError::TooLarge;
    }
    let before = &source[..source.floor_char_boundary(at)];
    let line = before.rsplit('\n').next().unwrap_or_default();
    TemplateError::Invalid {
        key: key.to_owned(),
        line: before.matches('\n').count() + 1,
        column: line.chars().count() + 1,
        fault,
    }
}
