//! Bytes that must not leak: passphrases, key files, tokens.
//!
//! A [`Secret`] cannot be printed: it implements neither `Debug` nor `Display` nor serialisation, so a struct
//! that holds one cannot derive them by accident. Its memory is overwritten when it is dropped, and every
//! constructor overwrites what it copied from.

use secrecy::{ExposeSecret, SecretBox};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Secret bytes of any length. Clones are separate copies, each overwritten when dropped.
pub struct Secret(SecretBox<[u8]>);

impl Secret {
    /// Takes the bytes over. The vector's own buffer is overwritten, spare capacity included.
    pub fn from_bytes(mut bytes: Vec<u8>) -> Self {
        // Shrinking a vector into a box may move it and leave the old buffer behind as it was: copy and wipe.
        let boxed: Box<[u8]> = bytes.as_slice().into();
        bytes.zeroize();
        Self(SecretBox::new(boxed))
    }

    /// Takes text over, as its UTF-8 bytes.
    pub fn from_text(text: String) -> Self {
        Self::from_bytes(text.into_bytes())
    }

    /// The first line's worth of a file or a command's output: one line ending at the very end is dropped,
    /// everything else counts, spaces and further lines included.
    pub fn from_line(bytes: Vec<u8>) -> Self {
        let bytes = Zeroizing::new(bytes);
        let line = match bytes.as_slice() {
            [line @ .., b'\r', b'\n'] | [line @ .., b'\n'] => line,
            line => line,
        };
        Self(SecretBox::new(line.into()))
    }

    /// The bytes. Named so that a reader sees where a secret leaves its wrapper; copy them nowhere.
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl Clone for Secret {
    fn clone(&self) -> Self {
        Self(SecretBox::new(self.expose().into()))
    }
}

/// Takes the same time wherever two secrets of one length differ; lengths are not hidden.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl Eq for Secret {}

#[cfg(test)]
mod tests {
    use super::*;

    // An inherent constant wins over a trait's, and exists only where the type prints.
    macro_rules! prints {
        ($type:ty) => {{
            #[allow(dead_code)]
            trait Fallback {
                const PRINTS: bool = false;
            }
            impl<T> Fallback for T {}
            struct Probe<T>(std::marker::PhantomData<T>);
            #[allow(dead_code)]
            impl<T: std::fmt::Debug> Probe<T> {
                const PRINTS: bool = true;
            }
            <Probe<$type>>::PRINTS
        }};
    }

    #[test]
    fn a_secret_cannot_be_printed() {
        assert!(prints!(String), "the probe must be able to say yes");
        assert!(!prints!(Secret));
    }

    #[test]
    fn only_one_line_ending_at_the_end_is_dropped() {
        let table: [(&[u8], &[u8]); 6] = [
            (b"key", b"key"),
            (b"key\n", b"key"),
            (b"key\r\n", b"key"),
            (b"key\n\n", b"key\n"),
            (b" key \r", b" key \r"),
            (b"\n", b""),
        ];
        for (file, secret) in table {
            assert_eq!(Secret::from_line(file.to_vec()).expose(), secret);
        }
    }

    #[test]
    fn equality_is_by_content() {
        assert!(Secret::from_text("a".into()) == Secret::from_bytes(vec![b'a']));
        assert!(Secret::from_text("a".into()) != Secret::from_text("ab".into()));
        assert!(Secret::from_text(String::new()).clone().is_empty());
    }
}
