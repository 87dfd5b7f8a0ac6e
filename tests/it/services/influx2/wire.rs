//! Exchanges as their files describe them, and bytes on a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::Sender;

use super::{Request, State, TOKEN, Trouble};

const EXCHANGES: [(&str, &str); 12] = [
    ("health", include_str!("../../fixtures/influxdb2/health.http")),
    ("ping", include_str!("../../fixtures/influxdb2/ping.http")),
    ("metadata", include_str!("../../fixtures/influxdb2/metadata.http")),
    ("shard", include_str!("../../fixtures/influxdb2/shard.http")),
    ("orgs", include_str!("../../fixtures/influxdb2/orgs.http")),
    ("buckets", include_str!("../../fixtures/influxdb2/buckets.http")),
    ("query", include_str!("../../fixtures/influxdb2/query.http")),
    ("make", include_str!("../../fixtures/influxdb2/make.http")),
    ("fill", include_str!("../../fixtures/influxdb2/fill.http")),
    ("change", include_str!("../../fixtures/influxdb2/change.http")),
    ("remove", include_str!("../../fixtures/influxdb2/remove.http")),
    ("error", include_str!("../../fixtures/influxdb2/error.http")),
];

pub type Values = Vec<(&'static str, Vec<u8>)>;

/// An exchange: what is asked, and the lines of the answer's head and its body, with names in `%`.
struct Exchange {
    asks: Vec<&'static str>,
    head: Vec<&'static str>,
    body: &'static str,
}

fn exchange(name: &str) -> Exchange {
    let text = EXCHANGES.iter().find(|(known, _)| *known == name).unwrap().1;
    assert!(text.contains("not recorded from a\n# running server"), "{name} says what it is");
    let (mut asks, mut head, mut rest) = (Vec::new(), Vec::new(), text);
    while let Some((line, more)) = rest.split_once('\n') {
        rest = more;
        match line.split_once(' ') {
            Some((">", line)) => asks.push(line),
            Some(("<", line)) => head.push(line),
            _ if line == "<" => break,
            _ => {}
        }
    }
    // The last line's end belongs to the file.
    Exchange { asks, head, body: rest.strip_suffix('\n').unwrap_or(rest) }
}

/// Whether a path is what an exchange asks for: `%name%` stands for one component.
fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
    let one =
        |(pattern, part): (&&str, &&str)| pattern == part || pattern.starts_with('%') && !part.is_empty();
    pattern.len() == path.len() && pattern.iter().zip(&path).all(one)
}

fn filled(template: &str, values: &Values) -> Vec<u8> {
    let (mut filled, mut rest) = (Vec::new(), template);
    while let Some((before, after)) = rest.split_once('%') {
        let (name, more) = after.split_once('%').unwrap();
        filled.extend_from_slice(before.as_bytes());
        let value = values.iter().find(|(known, _)| *known == name);
        filled.extend_from_slice(&value.unwrap_or_else(|| panic!("{name} is missing")).1);
        rest = more;
    }
    filled.extend_from_slice(rest.as_bytes());
    filled
}

fn receive(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut words = line.split(' ');
    let mut request =
        Request { method: words.next()?.into(), target: words.next()?.into(), ..Request::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((key, value)) = line.trim_end().split_once(": ") else { break };
        request.headers.insert(key.to_ascii_lowercase(), value.into());
    }
    if request.headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
            let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
            let mut piece = vec![0; length + 2];
            reader.read_exact(&mut piece).ok()?;
            request.body.extend_from_slice(&piece[..length]);
            if length == 0 {
                break;
            }
        }
    } else if let Some(length) = request.headers.get("content-length") {
        request.body = vec![0; length.parse().ok()?];
        reader.read_exact(&mut request.body).ok()?;
    }
    Some(request)
}

pub fn serve(stream: TcpStream, state: &Mutex<State>) {
    // Half a request is what a client leaves that gave up: nothing is done.
    let Some(mut request) = receive(&stream) else { return };
    let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if state.is_dead {
        return;
    }
    let path = request.target.split('?').next().unwrap().to_owned();
    let fitting = |(_, asks): &(&str, Vec<&str>)| {
        let first = asks.first().and_then(|line| line.split_once(' '));
        first.is_some_and(|(method, pattern)| method == request.method && fits(pattern, &path))
    };
    let mut known = EXCHANGES.iter().map(|(name, _)| (*name, exchange(name).asks));
    let Some((name, asks)) = known.find(fitting) else {
        state.wrong.push(format!("{} {}", request.method, request.target));
        return send(stream, Answer::error(&state.version, (404, "not found", "path not found")));
    };
    request.exchange = name.into();
    state.requests.push(request.clone());
    let mut is_allowed = true;
    for header in &asks[1..] {
        let (key, wanted) = header.split_once(": ").unwrap();
        let got = request.headers.get(key).map_or("", String::as_str);
        match key {
            "authorization" => is_allowed = got == format!("Token {TOKEN}"),
            _ if got == wanted => {}
            _ => state.wrong.push(format!("{name}: {key} is {got:?} and not {wanted:?}")),
        }
    }
    let refuses = |(exchange, well, trouble): &(&str, usize, Trouble)| {
        *exchange == name && *well == 0 && matches!(trouble, Trouble::Says(..))
    };
    let answered = match is_allowed {
        // What is refused is not done.
        true if state.trouble.iter().any(refuses) => Err((500, "internal error", "")),
        true => state.answer(name, &request),
        false => Err((401, "unauthorized", "unauthorized access")),
    };
    let mut answer = match answered {
        Ok(values) => Answer::of(name, &state.version, values),
        Err(error) => Answer::error(&state.version, error),
    };
    for (exchange, well, trouble) in std::mem::take(&mut state.trouble) {
        match (exchange == name, well) {
            (true, 0) => {
                state.is_dead |= matches!(trouble, Trouble::Dies(_));
                answer.spoil(trouble, &state);
            }
            (is_this, well) => state.trouble.push((exchange, well - usize::from(is_this), trouble)),
        }
    }
    drop(state);
    send(stream, answer);
}

struct Answer {
    status: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes of the body that are sent, and whether the answer then ends as it should.
    sent: Option<usize>,
    stalls: Option<Sender<()>>,
    is_silent: bool,
}

impl Answer {
    fn of(name: &str, version: &str, mut values: Values) -> Self {
        values.extend([("version", version.into()), ("token", Vec::new())]);
        let exchange = exchange(name);
        let line = |line: &&str| String::from_utf8(filled(line, &values)).unwrap();
        let mut head = exchange.head.iter().map(line);
        let status = head.next().unwrap();
        let pair =
            |line: String| line.split_once(": ").map(|(key, value)| (key.into(), value.into())).unwrap();
        let headers = head.map(pair).collect();
        // Lines of a file end as those of a multipart answer must not.
        let template = match name {
            "metadata" => exchange.body.replace('\n', "\r\n") + "\r\n",
            _ => exchange.body.to_owned(),
        };
        let body = filled(&template, &values);
        Self { status, headers, body, sent: None, stalls: None, is_silent: false }
    }

    fn error(version: &str, (status, code, message): (u16, &'static str, &'static str)) -> Self {
        let values =
            vec![("status", status.to_string().into()), ("code", code.into()), ("message", message.into())];
        Self::of("error", version, values)
    }

    fn spoil(&mut self, trouble: Trouble, state: &State) {
        match trouble {
            Trouble::Dies(at) if at >= 0 => {
                self.sent = Some(usize::try_from(at).unwrap().min(self.body.len()))
            }
            Trouble::Dies(at) => self.sent = self.body.len().checked_add_signed(at.try_into().unwrap()),
            Trouble::Stalls(at) => (self.sent, self.stalls) = (Some(at), Some(state.stalled.clone())),
            Trouble::Says(status, code, message) => {
                *self = Self::error(&state.version, (status, code, message))
            }
            Trouble::EndsIn(at, message) => {
                self.body.truncate(at);
                self.body
                    .extend_from_slice(&Self::error(&state.version, (500, "internal error", message)).body);
            }
            Trouble::Header(name, value) => {
                // Two ways to say how long it is are one too many.
                let other = if name == "Content-Length" { "Transfer-Encoding" } else { name };
                self.headers.retain(|(key, _)| key != name && key != other);
                if !value.is_empty() {
                    self.headers.push((name.into(), value));
                }
            }
            Trouble::Body(body) => self.body = body,
            Trouble::CutTo(at) => self.body.truncate(at),
            Trouble::Waits => (self.is_silent, self.stalls) = (true, Some(state.stalled.clone())),
            Trouble::Silent => self.is_silent = true,
        }
    }
}

fn send(mut stream: TcpStream, answer: Answer) {
    if answer.is_silent {
        if let Some(stalled) = answer.stalls {
            let _ = stalled.send(());
            let _ = stream.read(&mut [0; 1]);
        }
        let _ = stream.shutdown(Shutdown::Both);
        return;
    }
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", answer.status);
    for (key, value) in &answer.headers {
        head += &format!("{key}: {value}\r\n");
    }
    let is_chunked = answer.headers.iter().any(|(key, _)| key == "Transfer-Encoding");
    let has_length = answer.headers.iter().any(|(key, _)| key == "Content-Length");
    if !is_chunked && !has_length && answer.status != "204" {
        head += &format!("Content-Length: {}\r\n", answer.body.len());
    }
    let mut all = (head + "\r\n").into_bytes();
    for piece in answer.body[..answer.sent.unwrap_or(answer.body.len())].chunks(10_000) {
        if is_chunked {
            all.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        }
        all.extend_from_slice(piece);
        if is_chunked {
            all.extend_from_slice(b"\r\n");
        }
    }
    if is_chunked && answer.sent.is_none() {
        all.extend_from_slice(b"0\r\n\r\n");
    }
    let _ = stream.write_all(&all);
    if let Some(stalled) = answer.stalls {
        let _ = stalled.send(());
        // Until whoever asked goes away.
        let _ = stream.read(&mut [0; 1]);
    }
    let _ = stream.shutdown(Shutdown::Both);
}
