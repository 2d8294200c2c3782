//! What can be wrong with a template, and what to write instead.

/// Most characters of a template that an error repeats.
const MOST_QUOTED: usize = 40;
/// All names, as errors list them.
const NAMES: &str = "names are token, id, name, namespace, owner and contact";
/// All filters, as errors list them.
const FILTERS: &str = "filters are b64encode, lower, replace('old', 'new'), trim and upper";

/// What is wrong with a template. Holds words of the template at most, never of what is rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// `{%` or `{#`.
    #[error("write expressions such as {{{{ token }}}} only, no {{% statements %}} and no {{# comments #}}")]
    Statement,
    /// A name that there is not.
    #[error("{0:?} is not known; {NAMES}")]
    UnknownName(String),
    /// A name with a dot before it, as Helm and Go write it.
    #[error("no dot before a name: write {{{{ {0} }}}}")]
    LeadingDot(String),
    /// A path of Helm, Go or Jinja.
    #[error(
        "{0:?} is a path, as Helm and Go have them, and there are none here; {NAMES}: write {{{{ token }}}}"
    )]
    Path(String),
    /// A name that is called.
    #[error(
        "{0:?} cannot be called: names are no functions; a filter stands after a bar, as in {{{{ token | upper }}}}"
    )]
    Call(String),
    /// A filter that there is not.
    #[error("{0:?} is not a filter; {FILTERS}")]
    UnknownFilter(String),
    /// A bar with something else than a filter behind it.
    #[error("the name of a filter is missing after |; {FILTERS}")]
    NoFilter,
    /// Arguments of a filter that takes none.
    #[error("{0} takes nothing in parentheses: write | {0}")]
    NoArguments(&'static str),
    /// `replace` without its two texts.
    #[error("replace takes two texts in quotes: write | replace('old', 'new')")]
    Replace,
    /// A character that begins nothing.
    #[error(
        "{0:?} is not understood here: an expression holds names, texts in quotes, ~ to join them, | before a filter, and parentheses; {NAMES}"
    )]
    Unexpected(char),
    /// Nothing where a part should be.
    #[error("a name or a text in quotes is missing here, as in {{{{ token }}}}; {NAMES}")]
    Missing,
    /// Two parts side by side.
    #[error("{0:?} follows without anything between: write ~ to join two parts, or | before a filter")]
    Beside(String),
    /// `{{` without its end.
    #[error(
        "this {{{{ is not closed: write }}}} behind the expression; text that holds braces is written as {{{{ '{{{{' }}}}"
    )]
    OpenExpression,
    /// A quote without its end.
    #[error("the text that begins here is not closed: write {0} behind it")]
    OpenText(char),
    /// A parenthesis without its end.
    #[error("this parenthesis is not closed: write ) before the end of the expression")]
    OpenParenthesis,
    /// A parenthesis without its begin.
    #[error("this ) closes nothing: leave it out, or write ( before")]
    ClosedTwice,
    /// A backslash with something else behind it than what may be escaped.
    #[error(
        "a backslash in a text in quotes stands before one of \\ ' \" n r t only: write \\\\ for a backslash itself"
    )]
    Escape,
    /// Filters on filters, on texts that grow.
    #[error("its filters have too much to do: use fewer of them, or shorter texts")]
    TooMuchWork,
    /// The result is larger than what is left for it.
    #[error("the result is too large")]
    TooLarge,
}

/// As much of `text` as an error repeats.
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(MOST_QUOTED) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
