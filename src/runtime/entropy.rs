//! Random bytes from the operating system, and names made of them.

use rand::TryRng;
use rand::rngs::SysRng;

use crate::domain::ports::{Entropy, EntropyError};

/// The operating system's generator. Asked every time: credentials are rare, and no seed is kept in memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        SysRng.try_fill_bytes(bytes).map_err(|error| EntropyError(error.to_string()))
    }
}

/// Ten characters that tell two processes apart. No modulo bias to speak of: 256 is a multiple of 32.
pub fn suffix(entropy: &dyn Entropy) -> Result<String, EntropyError> {
    // Without 0, 1, i, l: people compare these by eye. Valid in a DNS label.
    const ALPHABET: &[u8; 32] = b"23456789abcdefghjkmnopqrstuvwxyz";
    let mut bytes = [0; 10];
    entropy.fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fills_everything_and_never_the_same_twice() {
        let (mut first, mut second) = ([0; 64], [0; 64]);
        SystemEntropy.fill(&mut first).expect("available");
        SystemEntropy.fill(&mut second).expect("available");
        assert_ne!(first, second);
        assert!(first.chunks(16).all(|chunk| chunk != [0; 16]));
    }

    #[test]
    fn suffixes_differ_and_fit_into_a_name() {
        let suffix = |()| suffix(&SystemEntropy).expect("available");
        let (first, second) = (suffix(()), suffix(()));
        assert_ne!(first, second);
        assert!(first.len() == 10 && first.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    }

    #[test]
    fn a_generator_that_fails_is_an_error() {
        struct Broken;
        impl Entropy for Broken {
            fn fill(&self, _: &mut [u8]) -> Result<(), EntropyError> {
                Err(EntropyError("broken".to_owned()))
            }
        }
        assert!(super::suffix(&Broken).is_err());
    }
}
