//! Pages of a service, over a real socket: whole, resumed, repeated, in a circle.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use audit_chain::error::{Error, Result};
use audit_chain::export::pages::{Page, PageSource, extract};

/// A service with events in pages of 10 that fails at the requests it is told to.
struct Service {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    fail_at: Arc<Mutex<Vec<usize>>>,
}

fn event(number: usize) -> String {
    format!("{{\"id\": \"evt_{number:04}\", \"detail\":{{\"n\":{number}, \"note\":\"café ☕\"}}}}")
}

impl Service {
    /// Serves `events` events; `overlap` of each page stand in the page before, too.
    fn start(events: usize, overlap: usize, circle: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let fail_at = Arc::new(Mutex::new(Vec::<usize>::new()));
        let (seen, fails) = (Arc::clone(&requests), Arc::clone(&fail_at));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                reader.read_line(&mut line).unwrap();
                let mut header = String::new();
                while header != "\r\n" {
                    header.clear();
                    reader.read_line(&mut header).unwrap();
                }
                let request = seen.fetch_add(1, Ordering::SeqCst);
                if fails.lock().unwrap().contains(&request) {
                    stream
                        .write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
                        .unwrap();
                    continue;
                }
                let from: usize = line
                    .split("cursor=")
                    .nth(1)
                    .map_or(0, |rest| rest.split(' ').next().unwrap().parse().unwrap());
                let to = (from + 10).min(events);
                let rows: Vec<String> =
                    (from.saturating_sub(if from > 0 { overlap } else { 0 })..to).map(event).collect();
                let next = if circle {
                    format!("\"{from}\"")
                } else if to < events {
                    format!("\"{to}\"")
                } else {
                    "null".into()
                };
                let body = format!("{{\"events\":[{}],\n\"next_cursor\":{next}}}", rows.join(",\n"));
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { address, requests, fail_at }
    }
}

impl PageSource for &Service {
    fn name(&self) -> String {
        format!("http://{}/events", self.address)
    }

    fn page(&mut self, cursor: Option<&str>) -> Result<Page> {
        let failed = |source| Error::Io { action: "read", path: "events".into(), source };
        let mut stream = TcpStream::connect(self.address).map_err(failed)?;
        let query = cursor.map(|cursor| format!("?cursor={cursor}")).unwrap_or_default();
        write!(stream, "GET /events{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .map_err(failed)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(failed)?;
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        if !head.starts_with("HTTP/1.1 200") {
            return Err(failed(std::io::Error::other(head.lines().next().unwrap().to_owned())));
        }
        Page::parse(&self.name(), body.as_bytes())
    }
}

fn expected(events: usize) -> String {
    (0..events).map(|number| event(number) + "\n").collect()
}

#[test]
fn all_pages_become_one_file_with_the_exact_bytes_of_each_record() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(57, 0, false);
    let out = folder.path().join("events.ndjson");
    let made = extract(&mut &service, &out, None).unwrap();
    assert_eq!((made.pages, made.rows, made.repeated, made.resumed_at), (6, 57, 0, 0));
    let text = std::fs::read_to_string(&out).unwrap();
    assert!(text == expected(57), "{text}");
    assert_eq!(made.size_bytes, text.len() as u64);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(matches!(extract(&mut &service, &out, None), Err(Error::Io { .. })), "it is never overwritten");
}

#[test]
fn an_extraction_goes_on_where_it_was_stopped_wherever_that_was() {
    let folder = tempfile::tempdir().unwrap();
    for stop in 0..6 {
        let service = Service::start(57, 0, false);
        *service.fail_at.lock().unwrap() = vec![stop];
        let out = folder.path().join(format!("events-{stop}.ndjson"));
        let error = extract(&mut &service, &out, None).unwrap_err();
        assert!(matches!(error, Error::Io { .. }) && !out.exists());
        // A process that died while it wrote the next page left a part of it.
        let part = folder.path().join(format!("events-{stop}.ndjson.part"));
        let mut text = std::fs::read(&part).unwrap();
        text.extend_from_slice(b"{\"id\":\"evt_half");
        std::fs::write(&part, text).unwrap();
        let made = extract(&mut &service, &out, None).unwrap();
        assert_eq!((made.rows, made.resumed_at), (57, stop as u64 * 10));
        assert_eq!(
            service.requests.load(Ordering::SeqCst),
            7,
            "no page is asked for twice but the one that failed"
        );
        assert!(std::fs::read_to_string(&out).unwrap() == expected(57), "stopped at {stop}");
    }
}

#[test]
fn records_in_two_neighbouring_pages_are_taken_once_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(40, 3, false);
    let out = folder.path().join("events.ndjson");
    let made = extract(&mut &service, &out, None).unwrap();
    assert_eq!((made.rows, made.repeated), (40, 9));
    assert!(std::fs::read_to_string(&out).unwrap() == expected(40));
}

#[test]
fn a_page_that_names_itself_and_a_state_that_does_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(40, 0, true);
    let out = folder.path().join("events.ndjson");
    let error = extract(&mut &service, &out, None).unwrap_err().to_string();
    assert!(error.contains("names itself"), "{error}");
    std::fs::write(folder.path().join("events.ndjson.part"), "").unwrap();
    assert!(matches!(extract(&mut &service, &out, None), Err(Error::Malformed { .. })));
    std::fs::write(folder.path().join("events.ndjson.part.state"), "{}").unwrap();
    assert!(matches!(extract(&mut &service, &out, None), Err(Error::Malformed { .. })));
}
