//! Asks a person for a password, on the terminal itself: stdin may be the data of a backup.
//!
//! Invariant: however it ends, the terminal echoes again.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::CliError;
use crate::base::cancel::Cancelled;
use crate::config::Password;
use crate::seal::slot::Unlock;

/// No password is longer, in bytes.
const LIMIT: usize = 4096;

/// Asks once.
pub fn password(question: &str) -> Result<Password, CliError> {
    unlock(ask(question)?)
}

/// Asks twice, for a password that is being made.
pub fn new_password(question: &str) -> Result<Password, CliError> {
    let first = ask(question)?;
    let second = ask("the same again: ")?;
    if first != second {
        return Err(CliError::usage("the two passwords differ: nothing was made"));
    }
    unlock(first)
}

fn unlock(typed: Zeroizing<Vec<u8>>) -> Result<Password, CliError> {
    if typed.is_empty() {
        return Err(CliError::usage("an empty password protects nothing"));
    }
    Ok(Unlock::Passphrase(typed))
}

fn nobody() -> CliError {
    CliError::usage("no password was given, and there is no terminal to ask on").hint(
        "set LIFEBOAT_PASSWORD_FILE, LIFEBOAT_PASSWORD_COMMAND or LIFEBOAT_PASSWORD, or use --password-file",
    )
}

/// Puts the terminal back as it was.
struct Silent {
    terminal: File,
    before: Termios,
}

impl Silent {
    fn new(terminal: File) -> Result<Self, CliError> {
        let before = tcgetattr(&terminal).map_err(|_| nobody())?;
        let mut silent = before.clone();
        // Without signals from the keyboard: our own handler would not end a blocking read.
        silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(&terminal, OptionalActions::Flush, &silent).map_err(|_| nobody())?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
        let _ = self.terminal.write_all(b"\n");
    }
}

fn ask(question: &str) -> Result<Zeroizing<Vec<u8>>, CliError> {
    if !std::io::stderr().is_terminal() {
        return Err(nobody());
    }
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(|_| nobody())?;
    let mut silent = Silent::new(terminal)?;
    silent.terminal.write_all(question.as_bytes()).map_err(|_| nobody())?;
    read(&mut silent.terminal)
}

/// Reads up to the end of the line, obeying the keys people use to correct themselves.
fn read(terminal: &mut impl Read) -> Result<Zeroizing<Vec<u8>>, CliError> {
    const INTERRUPT: u8 = 0x03;
    const END: u8 = 0x04;
    const ERASE_LINE: u8 = 0x15;
    // Reserved whole, so that no half of it is left behind by growing.
    let mut typed = Zeroizing::new(Vec::with_capacity(LIMIT));
    let mut key = Zeroizing::new([0u8; 1]);
    loop {
        if terminal.read(key.as_mut()).map_err(|_| nobody())? == 0 {
            return Ok(typed);
        }
        match key[0] {
            b'\n' | b'\r' | END => return Ok(typed),
            INTERRUPT => return Err(Cancelled.into()),
            ERASE_LINE => typed.clear(),
            0x08 | 0x7f => erase_character(&mut typed),
            byte if typed.len() < LIMIT => typed.push(byte),
            _ => return Err(CliError::usage("the password is too long")),
        }
    }
}

/// One character, which may be several bytes.
fn erase_character(typed: &mut Vec<u8>) {
    while let Some(byte) = typed.pop() {
        if byte & 0xc0 != 0x80 {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrections_are_obeyed() {
        let typed = |mut keys: &[u8]| read(&mut keys).map(|typed| typed.to_vec());
        assert_eq!(typed(b"secret\nrest").unwrap(), b"secret");
        assert_eq!(typed("ab\u{e9}\x7fc\r".as_bytes()).unwrap(), b"abc");
        assert_eq!(typed(b"wrong\x15right\n").unwrap(), b"right");
        assert_eq!(typed(b"\x7f\x08x").unwrap(), b"x");
        assert_eq!(typed(b"se\x03").unwrap_err().exit.code(), 130);
        assert!(typed(&[b'a'; LIMIT + 1]).is_err());
    }
}
