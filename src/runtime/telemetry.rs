//! Logs: text for people, JSON for collectors, always to standard error.

use std::io::Write as _;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::args::LogFormat;
use super::lines::Lines;
use crate::platform::process::LOST_LINES;

/// What libraries say that is said better elsewhere, each with the library's name: spans that repeat an object's name before
/// each line, with `object.reason=unknown`. Whoever asks for a library's log gets it.
const QUIET: [(&str, &str); 1] = [("kube_runtime", "kube_runtime::controller=warn")];
/// Never logged, whoever asks: about an answer that cannot be read the client says all of the answer, and Secrets are answers.
const NEVER: &str = "kube_client::client=off";
/// How long the last lines of a process are waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// The process's way to standard error, once [`init`] has set it up.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Why there will be no logs.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error(
        "--log-level {found:?}: write error, warn, info, debug or trace, or a filter such as info,kube=debug"
    )]
    Level {
        /// What was given.
        found: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody else in this process was first.
    #[error("the log is set up already")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
    /// No thread to write with.
    #[error("the log cannot be written")]
    Thread(#[source] std::io::Error),
}

impl TelemetryError {
    /// A bounded name for logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Level { .. } => "Level",
            Self::Twice(_) => "Twice",
            Self::Thread(_) => "Thread",
        }
    }
}

/// Sets the process's log up. To be called once.
pub fn init(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    let lines = Lines::to(std::io::stderr(), LOST_LINES.clone()).map_err(TelemetryError::Thread)?;
    let subscriber = subscriber(format, level, lines.clone())?;
    tracing::subscriber::set_global_default(subscriber)?;
    let _ = LINES.set(lines);
    // The default would write to standard error itself, and wait there.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panicked: {}", panic.payload_as_str().unwrap_or("no message"));
    }));
    Ok(())
}

/// Writes one line for whoever started the process.
pub fn say(line: &str) {
    match LINES.get() {
        Some(lines) => lines.put(format!("{line}\n").as_bytes()),
        None => drop(writeln!(std::io::stderr(), "{line}")),
    }
}

/// Waits until what was logged is written, but not for long: to be called before the process ends.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush(PATIENCE);
    }
}

fn subscriber<W>(
    format: LogFormat,
    level: &str,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(level)
        .map_err(|source| TelemetryError::Level { found: level.to_owned(), source })?;
    let quiet = QUIET.iter().filter(|(library, _)| !level.contains(library));
    let quiet =
        quiet.map(|(_, directive)| *directive).chain([NEVER]).filter_map(|directive| directive.parse().ok());
    let filter = quiet.fold(filter, EnvFilter::add_directive);
    // Errors of the writer would go to standard error, by a way that panics where nobody reads it.
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).log_internal_errors(false);
    Ok(match format {
        // Fields of events at the top, where collectors filter. Those of the span stand under `span`, where a field `name`
        // would be hidden by the span's own: name the object in the event.
        LogFormat::Json => Box::new(builder.json().flatten_event(true).with_span_list(false).finish()),
        LogFormat::Text => Box::new(builder.with_ansi(false).finish()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn logged(format: LogFormat, level: &str) -> String {
        #[derive(Clone, Default)]
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().expect("not poisoned").write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = subscriber(format, level, move || writer.clone()).expect("a level");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(namespace = "shop", name = "orders", reason = "Due", "rotated");
            tracing::debug!("detail");
            tracing::warn!(target: "kube_client::client", "an answer with a secret");
            tracing::error!(target: "kube_client::client::builder", "an answer with a secret");
        });
        String::from_utf8(sink.0.lock().expect("not poisoned").clone()).expect("UTF-8")
    }

    #[test]
    fn json_lines_carry_the_object_they_are_about() {
        let text = logged(LogFormat::Json, "info");
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&line["message"], &line["reason"]), (&"rotated".into(), &"Due".into()));
        assert_eq!((&line["namespace"], &line["name"]), (&"shop".into(), &"orders".into()));
    }

    #[test]
    fn the_client_never_says_what_it_was_answered() {
        for level in ["info", "trace", "kube_client=trace", "kube_client::client=trace"] {
            assert!(!logged(LogFormat::Json, level).contains("secret"), "{level}");
        }
    }

    #[test]
    fn text_has_no_colours_and_respects_the_level() {
        let text = logged(LogFormat::Text, "debug");
        assert!(text.contains("rotated") && text.contains("orders") && text.contains("detail"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
        assert_eq!(logged(LogFormat::Text, "warn"), "");
    }

    #[test]
    fn a_level_that_is_none_is_explained() {
        let error = subscriber(LogFormat::Text, "loud=very", std::io::stderr).err().expect("refused");
        assert!(error.to_string().starts_with("--log-level \"loud=very\": write error, warn"), "{error}");
    }
}
