//! Where a template is rendered to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::fault::Fault;

/// Bytes that filters may read and write in any template …
const FILTERED_AT_LEAST: usize = 16 * 1024;
/// … and for each byte of it.
const FILTERED_PER_BYTE: usize = 32;

/// Counts the bytes that are read, written or moved for one template.
#[derive(Debug)]
pub struct Work {
    done: usize,
    /// What is left for filters: they can be put one after the other, and make what they are given longer.
    left_for_filters: usize,
}

impl Work {
    /// What the template `source` may take.
    pub fn of(source: &str) -> Self {
        Self { done: 0, left_for_filters: FILTERED_AT_LEAST + FILTERED_PER_BYTE * source.len() }
    }

    /// Bytes that were read, written or moved so far.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Counts bytes of the template that were read.
    pub fn read(&mut self, bytes: usize) {
        self.done += bytes;
    }

    fn filter(&mut self, bytes: usize) -> Result<(), Fault> {
        self.left_for_filters = self.left_for_filters.checked_sub(bytes).ok_or(Fault::TooMuchWork)?;
        self.done += bytes;
        Ok(())
    }
}

/// A filter, with its arguments.
pub enum Filter {
    /// Base64 by the standard alphabet, padded.
    Base64,
    /// Lower case, each character for itself.
    Lower,
    /// Every occurrence of one text replaced by another.
    Replace(String, String),
    /// Without white space at both ends.
    Trim,
    /// Upper case, each character for itself.
    Upper,
}

/// The text so far. The value of an expression that is being read is its end, from where the expression began: joining
/// two values is writing one behind the other. Wiped on drop, and whenever it moves to make room.
pub struct Page<'w> {
    text: Zeroizing<String>,
    limit: usize,
    /// What it took.
    pub work: &'w mut Work,
}

impl<'w> Page<'w> {
    /// An empty page for at most `limit` bytes.
    pub fn new(limit: usize, work: &'w mut Work) -> Self {
        Self { text: Zeroizing::new(String::new()), limit, work }
    }

    /// Where the text that is written next begins.
    pub fn end(&self) -> usize {
        self.text.len()
    }

    /// All of it.
    pub fn into_text(self) -> Zeroizing<String> {
        self.text
    }

    /// Writes `text` at the end.
    pub fn write(&mut self, text: &str) -> Result<(), Fault> {
        self.make_room(text.len())?;
        self.work.done += text.len();
        self.text.push_str(text);
        Ok(())
    }

    /// Puts the value that begins at `begin` through a filter.
    pub fn filter(&mut self, begin: usize, filter: &Filter) -> Result<(), Fault> {
        self.work.filter(self.text.len() - begin)?;
        let value = Zeroizing::new(self.text[begin..].to_owned());
        // Measured first: a buffer that grew while it is written would leave copies that nobody wipes.
        let length = match filter {
            Filter::Base64 => value.len().div_ceil(3) * 4,
            Filter::Lower => value.chars().flat_map(char::to_lowercase).map(char::len_utf8).sum(),
            Filter::Upper => value.chars().flat_map(char::to_uppercase).map(char::len_utf8).sum(),
            Filter::Trim => value.trim().len(),
            Filter::Replace(old, new) => {
                let found = value.matches(old.as_str()).count();
                value.len() - found * old.len() + found * new.len()
            }
        };
        self.work.filter(length)?;
        self.text.truncate(begin);
        self.make_room(length)?;
        match filter {
            Filter::Base64 => {
                let mut encoded = Zeroizing::new(vec![0; length]);
                STANDARD.encode_slice(value.as_bytes(), &mut encoded).map_err(|_| Fault::TooLarge)?;
                self.text.extend(encoded.iter().map(|&byte| char::from(byte)));
            }
            Filter::Lower => self.text.extend(value.chars().flat_map(char::to_lowercase)),
            Filter::Upper => self.text.extend(value.chars().flat_map(char::to_uppercase)),
            Filter::Trim => self.text.push_str(value.trim()),
            Filter::Replace(old, new) => {
                let mut from = 0;
                for (at, found) in value.match_indices(old.as_str()) {
                    self.text.push_str(&value[from..at]);
                    self.text.push_str(new);
                    from = at + found.len();
                }
                self.text.push_str(&value[from..]);
            }
        }
        Ok(())
    }

    /// Room for `more` bytes, twice of what there is at least, so that what is moved stays in proportion to the result.
    fn make_room(&mut self, more: usize) -> Result<(), Fault> {
        let needed = self.text.len() + more;
        if needed > self.limit {
            return Err(Fault::TooLarge);
        }
        if needed > self.text.capacity() {
            let twice = (2 * self.text.capacity()).min(self.limit);
            let mut larger = Zeroizing::new(String::with_capacity(needed.max(twice)));
            larger.push_str(&self.text);
            self.work.done += self.text.len();
            self.text = larger;
        }
        Ok(())
    }
}
