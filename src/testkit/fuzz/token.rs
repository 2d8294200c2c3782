//! The text of a token.

use super::reference::{self, Fault};
use super::scene::{NOW, Scene};
use crate::domain::token::{CredentialId, ParseError, Presented, Token, check, digest_bytes, digest_of};
use crate::gate::demand::Demand;

/// An input that is a token, or nearly one. Accepted: the text of a living token.
pub fn token(input: &[u8]) -> bool {
    let scene = Scene::enter();
    let expanded = scene.expand(input);
    let Ok(text) = std::str::from_utf8(&expanded) else { return false };
    let wanted = reference::token(text);
    match wanted {
        Ok((prefix, id)) => {
            is_read(text, prefix, id);
            no_typo_is_read(text);
        }
        Err(fault) => {
            let error = match fault {
                Fault::Malformed => ParseError::Malformed,
                Fault::Checksum => ParseError::Checksum,
            };
            assert_eq!(check(text), Err(error));
            assert_eq!(Presented::parse(text).map(|_| ()), Err(error));
            assert_eq!(Token::parse(text).map(|_| ()), Err(error));
        }
    }
    let verdict = scene.gate.judge(Ok(text), &Demand::none(), NOW);
    let living = scene.known.iter().find(|known| known.living.is_some() && known.token.expose() == text);
    assert_eq!(verdict.is_accepted(), living.is_some(), "{}", verdict.outcome());
    scene.counted(None, None);
    living.is_some()
}

/// Every reader takes it apart alike, and nothing shows its secret.
fn is_read(text: &str, prefix: &str, id: &str) {
    assert_eq!(check(text), Ok(()));
    let presented = Presented::parse(text).expect("what the reference reads");
    assert_eq!((presented.prefix(), presented.id().to_string().as_str()), (prefix, id));
    assert_eq!(CredentialId::parse(id), Some(presented.id()));
    let token = Token::parse(text).expect("what the reference reads");
    assert_eq!((token.prefix(), token.id(), token.expose()), (prefix, id, text));
    assert_eq!(digest_bytes(&token.digest()), Some(presented.digest()));
    assert_eq!(token.digest(), digest_of(text.as_bytes()));
    let secret = &text[text.len() - 49..text.len() - 6];
    assert!(!format!("{token:?} {presented:?}").contains(secret));
}

/// No single character changed, none left out at either end, no two neighbours swapped within what the checksum covers.
fn no_typo_is_read(text: &str) {
    let reads = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok_and(|text| check(text).is_ok());
    let mut bytes = text.as_bytes().to_vec();
    for at in 0..bytes.len() {
        let own = bytes[at];
        for other in [own ^ 1, own ^ 0x20, b'0', b'_'] {
            bytes[at] = other;
            assert!(other == own || !reads(&bytes), "character {at} changed");
        }
        bytes[at] = own;
        if at + 7 < bytes.len() && own != bytes[at + 1] {
            bytes.swap(at, at + 1);
            assert!(!reads(&bytes), "characters {at} and {} swapped", at + 1);
            bytes.swap(at, at + 1);
        }
    }
    assert!(!reads(&bytes[..bytes.len() - 1]), "the last character is missing");
}
