//! `spec.secret.template`: written by anybody who may declare an ApiToken.

use zeroize::Zeroizing;

use crate::domain::template::{Fault, MAX_RENDERED, Names, Work, render};

/// The text of a template. Accepted: it renders.
pub fn template(input: &[u8]) -> bool {
    let Ok(source) = std::str::from_utf8(input) else { return false };
    let (one, other) = (rendered(source, 'x'), rendered(source, 'y'));
    match (&one, &other) {
        (Ok(one), Ok(other)) if !source.contains('|') => {
            // Without filters the values stand there as they are, and nothing else differs.
            let alike = one.chars().zip(other.chars()).all(|(a, b)| a == b || (a, b) == ('x', 'y'));
            assert!(alike && one.len() == other.len(), "something else than values differs");
        }
        (Err(one), Err(other)) => {
            assert!(one == other || by_size(one) || by_size(other), "the fault depends on the values");
            let message = one.1.to_string();
            assert!(message.len() < 500 && !message.contains(&"x".repeat(63)) || source.contains("xxx"));
            assert!(source.is_char_boundary(one.0), "the place is none");
        }
        (Err(fault), Ok(_)) | (Ok(_), Err(fault)) => {
            assert!(by_size(fault), "the fault depends on the values")
        }
        (Ok(_), Ok(_)) => {}
    }
    one.is_ok()
}

/// Renders with values of one letter, within the work that the template may take.
fn rendered(source: &str, letter: char) -> Result<Zeroizing<String>, (usize, Fault)> {
    let value = |length: usize| letter.to_string().repeat(length);
    let (short, long) = (value(10), value(63));
    let names = Names {
        token: &value(77),
        id: &short,
        name: &long,
        namespace: &long,
        owner: &long,
        contact: &value(253),
    };
    let mut work = Work::of(source);
    let rendered = render(source, &names, MAX_RENDERED, &mut work);
    let result = rendered.as_ref().map_or(MAX_RENDERED, |text| text.len());
    assert!(result <= MAX_RENDERED, "larger than anything may be");
    let bound = source.len() + 3 * result + 4 * (16 * 1024 + 32 * source.len());
    assert!(work.done() <= bound, "{} bytes of work for {} of template", work.done(), source.len());
    rendered
}

fn by_size(fault: &(usize, Fault)) -> bool {
    matches!(fault.1, Fault::TooLarge | Fault::TooMuchWork)
}
