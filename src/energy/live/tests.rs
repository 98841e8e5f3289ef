//! Against a server of our own on loopback that answers as it is told; nothing here leaves the machine.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{fs, thread};

use super::*;

const TOKEN: &str = "s3cret-t0ken-that-stays";
const GOOD: &str = r#"{"zone":"NL","carbonIntensity":268,"datetime":"2026-11-23T04:00:00.000Z",
    "updatedAt":"2026-11-23T03:41:55.112Z","emissionFactorType":"lifecycle","isEstimated":true,
    "estimationMethod":"TIME_SLICER_AVERAGE","temporalGranularity":"hourly"}"#;

#[derive(Clone)]
enum Does {
    Says(String),
    /// Accepts, and says nothing until the other side gives up.
    Hangs,
    /// Sends a byte of the body now and then, without an end.
    Drips,
    /// Sends a body without an end.
    Floods,
    Closes,
}

fn says(status: u16, headers: &str, body: &str) -> Does {
    Does::Says(format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()))
}

fn good() -> Does {
    says(200, "content-type: application/json\r\n", GOOD)
}

struct Server {
    base: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers the first request with the first of `does`, and so on; the last one is repeated.
    fn that(does: &[Does]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (does, log) = (does.to_vec(), Arc::clone(&asked));
        thread::spawn(move || {
            for (n, stream) in listener.incoming().enumerate() {
                let (does, log) = (does[n.min(does.len() - 1)].clone(), Arc::clone(&log));
                thread::spawn(move || answer(stream.unwrap(), &does, &log));
            }
        });
        Self { base, asked }
    }

    /// The client, with waits that a test has time for.
    fn client(&self) -> ElectricityMaps {
        let client = ElectricityMaps::new(TOKEN.into(), Some(self.base.clone()));
        ElectricityMaps { waits: [Duration::from_millis(5), Duration::from_millis(10)], ..client }
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn answer(mut stream: TcpStream, does: &Does, log: &Mutex<Vec<String>>) {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        request.push(byte[0]);
    }
    log.lock().unwrap().push(String::from_utf8(request).unwrap());
    let endless = "HTTP/1.1 200 OK\r\n\r\n{";
    let _ = match does {
        Does::Says(text) => stream.write_all(text.as_bytes()),
        Does::Hangs => stream.read(&mut byte).map(drop),
        Does::Drips => {
            stream.write_all(endless.as_bytes()).unwrap();
            while stream.write_all(b" ").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }
        Does::Floods => {
            stream.write_all(endless.as_bytes()).unwrap();
            while stream.write_all(&[b' '; 8192]).is_ok() {}
            Ok(())
        }
        Does::Closes => Ok(()),
    };
}

/// What comes of a service that does this, and how often it was asked. No error holds the token.
fn outcome(does: &[Does]) -> (Result<Intensity, LiveError>, usize) {
    let server = Server::that(does);
    let mut client = server.client();
    if does.iter().any(|does| matches!(does, Does::Hangs | Does::Drips)) {
        client.timeout = Duration::from_millis(300);
    }
    let outcome = client.latest("NL");
    if let Err(error) = &outcome {
        assert!(!format!("{error} {error:?} {error:#?}").contains(TOKEN));
    }
    (outcome, server.count())
}

fn nl() -> Intensity {
    let origin = Origin::Live { zone: "NL".into(), at: "2026-11-23T04:00:00.000Z".into(), estimated: true };
    Intensity { grams: GramsPerKwh(268.0), origin }
}

#[test]
fn a_good_answer_is_a_figure_with_its_time_and_zone() {
    let server = Server::that(&[good()]);
    assert_eq!(server.client().latest(" nl "), Ok(nl()));
    let asked = server.asked.lock().unwrap().concat();
    assert!(asked.starts_with("GET /v3/carbon-intensity/latest?zone=NL HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains(&format!("auth-token: {TOKEN}\r\n")) && asked.matches(TOKEN).count() == 1, "{asked}");
    assert_eq!(nl().origin.describe(), "Electricity Maps, zone NL, 2026-11-23T04:00Z, estimated");
}

#[test]
fn what_asking_again_cannot_help_is_asked_once_and_says_what_to_do() {
    for (status, error) in [
        (401, "Electricity Maps: the token was refused: check ELECTRICITY_MAPS_TOKEN"),
        (403, "the token may not read zone NL: check which zones the plan of ELECTRICITY_MAPS_TOKEN has"),
        (404, "it has no zone NL: expected a zone as its map shows it, such as NL or US-CAL-CISO"),
        (400, "expected status 200, got 400: is the service's address right?"),
    ] {
        // A service that repeats the token to us does not bring it into our errors.
        let (outcome, asked) = outcome(&[says(status, "", TOKEN)]);
        assert!(outcome.clone().unwrap_err().to_string().ends_with(error), "{outcome:?}");
        assert_eq!(asked, 1, "{status}");
    }
}

#[test]
fn trouble_that_passes_is_waited_for() {
    assert_eq!(outcome(&[says(429, "", ""), good()]), (Ok(nl()), 2));
    assert_eq!(outcome(&[says(503, "", ""), says(429, "retry-after: 0\r\n", ""), good()]), (Ok(nl()), 3));
    assert_eq!(outcome(&[Does::Closes, Does::Hangs, good()]), (Ok(nl()), 3));
    assert_eq!(outcome(&[says(429, "", "")]), (Err(LiveError::TooMany), 3));
    assert_eq!(outcome(&[says(502, "", "")]), (Err(LiveError::Down { status: 502 }), 3));
}

#[test]
fn the_service_says_how_long_to_wait_within_limits() {
    let start = Instant::now();
    assert_eq!(outcome(&[says(429, "retry-after: 1\r\n", ""), good()]).1, 2);
    assert!(start.elapsed() >= Duration::from_secs(1), "Retry-After is kept");
    // An hour is not waited, and the service not asked before it.
    assert_eq!(outcome(&[says(429, "retry-after: 3600\r\n", ""), good()]), (Err(LiveError::TooMany), 1));
    assert_eq!(outcome(&[says(429, "retry-after: Mon 23 Nov\r\n", ""), good()]), (Ok(nl()), 2));
}

#[test]
fn silence_and_dripping_end_at_the_timeout() {
    for does in [Does::Hangs, Does::Drips] {
        let start = Instant::now();
        let (outcome, asked) = outcome(&[does]);
        assert_eq!((outcome, asked), (Err(LiveError::Timeout { seconds: 0 }), 3));
        assert!(start.elapsed() < Duration::from_secs(30), "three tries of 0.3 s");
    }
}

#[test]
fn a_connection_that_is_refused_or_closed_is_unreachable() {
    let (closed, asked) = outcome(&[Does::Closes]);
    assert!(matches!(closed, Err(LiveError::Unreachable { .. })), "{closed:?}");
    assert_eq!(asked, 3);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(); // Closed again at once.
    let client = ElectricityMaps { waits: [Duration::ZERO; 2], ..ElectricityMaps::new(TOKEN.into(), None) };
    let refused = ElectricityMaps { base: format!("http://{port}"), ..client }.latest("NL").unwrap_err().to_string();
    assert!(refused.starts_with("Electricity Maps: not reached: ") && refused.contains("refused"), "{refused}");
}

#[test]
fn nonsense_is_named_and_not_repeated() {
    let figure = |figure: &str| GOOD.replace("268", figure);
    for (body, what) in [
        (String::new(), "expected JSON"),
        (format!("<html>{TOKEN}</html>"), "expected JSON"),
        (GOOD[..80].to_owned(), "expected JSON"),
        ("[]".into(), "expected a number in `carbonIntensity`"),
        (figure("null"), "expected a number in `carbonIntensity`"),
        (figure(&format!("\"{TOKEN}\"")), "expected a number in `carbonIntensity`"),
        (figure("-1"), "expected 0 to 5000 g/kWh, got -1"),
        (figure("5000.5"), "expected 0 to 5000 g/kWh, got 5000.5"),
        (figure("NaN"), "expected JSON"),
        (figure("1e999"), "expected JSON"),
        (GOOD.replace("2026-11-23T04:00:00.000Z", TOKEN), "expected a time in `datetime`"),
    ] {
        let nonsense = LiveError::Nonsense { what: what.into() };
        assert_eq!(outcome(&[says(200, "", &body)]), (Err(nonsense), 1), "{body}");
    }
    let zero = outcome(&[says(200, "", &figure("0"))]).0.unwrap();
    assert_eq!(zero.grams.0, 0.0, "a grid of water alone");
}

#[test]
fn a_huge_body_is_not_read() {
    let huge = LiveError::Nonsense { what: "expected a few hundred bytes, got more than 64 KiB".into() };
    assert_eq!(outcome(&[Does::Floods]), (Err(huge.clone()), 1));
    let padded = format!("{GOOD}{}", " ".repeat(70_000));
    assert_eq!(outcome(&[says(200, "", &padded)]), (Err(huge), 1));
}

#[test]
fn a_redirect_does_not_carry_the_token_on() {
    let elsewhere = Server::that(&[good()]);
    let location = format!("location: {}/v3/carbon-intensity/latest?zone=NL\r\n", elsewhere.base);
    for status in [301, 302, 307, 308] {
        assert_eq!(outcome(&[says(status, &location, "")]), (Err(LiveError::Status { status }), 1));
    }
    assert_eq!(elsewhere.count(), 0);
}

#[test]
fn only_zones_and_safe_addresses_are_asked() {
    let server = Server::that(&[good()]);
    for zone in ["", "Netherlands", "../NL", "NL&x=1", "NL-", "N1"] {
        assert!(matches!(server.client().latest(zone), Err(LiveError::NoZone { .. })), "{zone}");
    }
    for base in ["http://example.org", "ftp://127.0.0.1", "example.org", "", "http://127.0.0.1.example.org"] {
        let client = ElectricityMaps::new(TOKEN.into(), Some(base.into()));
        assert_eq!(client.latest("NL"), Err(LiveError::Address { given: base.into() }), "{base}");
    }
    let broken = ElectricityMaps { token: "a\nb".into(), ..server.client() };
    assert_eq!(broken.latest("NL"), Err(LiveError::Refused));
    assert_eq!(server.count(), 0);
    let debug = format!("{:?} {:?}", server.client(), Cached::new(server.client(), None));
    assert!(!debug.contains(TOKEN) && debug.contains("127.0.0.1"), "{debug}");
    let https = ElectricityMaps::new(TOKEN.into(), None).url("NL").unwrap();
    assert_eq!(https.as_str(), "https://api.electricitymaps.com/v3/carbon-intensity/latest?zone=NL");
    // The one thing that TLS may lack is the machine's certificates.
    assert!(client(&https).map_or_else(|error| error.to_string().contains("CA certificates"), |_| true));
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_406_400 + seconds)
}

#[test]
fn an_answer_serves_for_15_minutes_and_for_other_runs() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("not/yet/there");
    let server = Server::that(&[good()]);
    let mut cached = Cached::new(server.client(), Some(kept.clone()));
    for (seconds, asked) in [(0, 1), (1, 1), (899, 1), (900, 2), (1799, 2)] {
        assert_eq!((cached.latest("nl", at(seconds)), server.count()), (Ok(nl()), asked), "{seconds} s");
    }
    let mut other = Cached::new(server.client(), Some(kept.clone()));
    assert_eq!((other.latest("NL", at(1000)), server.count()), (Ok(nl()), 2), "another run finds the file");
    assert_eq!((other.latest("BE", at(1000)), server.count()), (Ok(nl()), 3), "another zone is another question");
    assert_eq!((other.latest("NL", at(2000)), server.count()), (Ok(nl()), 4));
    assert_eq!((cached.latest("NL", at(2600)), server.count()), (Ok(nl()), 4), "asked by the other run since");
    assert_eq!((cached.latest("NL", at(100)), server.count()), (Ok(nl()), 5), "an answer from the future is none");
    let files = texts(&kept);
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["carbon-BE.json", "carbon-NL.json"], "and nothing left aside");
    assert!(files.iter().all(|(_, text)| !text.contains(TOKEN) && text.contains("268")), "{files:?}");
}

fn texts(folder: &Path) -> Vec<(String, String)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut files: Vec<_> = entries.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn a_file_that_is_broken_or_not_ours_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::that(&[good()]);
    let file = folder.path().join("carbon-NL.json");
    Cached::new(server.client(), Some(folder.path().into())).latest("NL", at(0)).unwrap();
    let whole = fs::read_to_string(&file).unwrap();
    let broken = [
        String::new(),
        "{}".into(),
        whole[..40].to_owned(),
        whole.replace("268", "-268"),
        whole.replace("2026-11-23T", "soon"),
        whole.replace(r#""asked":"NL""#, r#""asked":"DE""#),
        whole.replace("1795406400", "18446744073709551615"),
    ];
    for (n, text) in broken.iter().enumerate() {
        assert_ne!(*text, whole);
        fs::write(&file, text).unwrap();
        let mut cached = Cached::new(server.client(), Some(folder.path().into()));
        assert_eq!((cached.latest("NL", at(1)), server.count()), (Ok(nl()), n + 2), "{text}");
    }
    // A folder that is a file cannot be written: the answer comes all the same.
    let mut nowhere = Cached::new(server.client(), Some(file));
    assert_eq!(nowhere.latest("NL", at(1)), Ok(nl()));
}

#[test]
fn after_a_failure_the_service_has_a_rest_that_doubles_to_an_hour() {
    let mut does = vec![says(401, "", ""); 9];
    does.push(good());
    let server = Server::that(&does);
    let mut cached = Cached::new(server.client(), None);
    let mut now = 0;
    for (n, rest) in [30, 60, 120, 240, 480, 960, 1920, 3600, 3600].into_iter().enumerate() {
        assert_eq!((cached.latest("NL", at(now)), server.count()), (Err(LiveError::Refused), n + 1));
        let waiting = LiveError::Waiting { why: Box::new(LiveError::Refused), seconds: 1 };
        assert_eq!((cached.latest("NL", at(now + rest - 1)), server.count()), (Err(waiting), n + 1));
        now += rest;
    }
    assert_eq!((cached.latest("NL", at(now)), server.count()), (Ok(nl()), 10));
    assert_eq!((cached.latest("NL", at(now + 899)), server.count()), (Ok(nl()), 10), "and all is well again");
    let waiting = LiveError::Waiting { why: Box::new(LiveError::Refused), seconds: 25 }.to_string();
    assert_eq!(waiting, "Electricity Maps: the token was refused: check ELECTRICITY_MAPS_TOKEN (asked again in 25 s)");
}

#[test]
fn a_failure_leaves_the_answer_before_it_until_that_is_old() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::that(&[good(), says(401, "", ""), good()]);
    let mut cached = Cached::new(server.client(), Some(folder.path().into()));
    assert_eq!(cached.latest("NL", at(0)), Ok(nl()));
    assert_eq!(cached.latest("NL", at(901)), Err(LiveError::Refused), "an old answer is none");
    assert!(matches!(cached.latest("NL", at(902)), Err(LiveError::Waiting { .. })));
    // Another run has better luck: its file ends the rest.
    assert_eq!(Cached::new(server.client(), Some(folder.path().into())).latest("NL", at(903)), Ok(nl()));
    assert_eq!((cached.latest("NL", at(904)), server.count()), (Ok(nl()), 3));
}
