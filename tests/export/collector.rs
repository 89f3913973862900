//! A server of OTLP over HTTP that reads with the official crate, and does what a test plans: also what no server should.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;

/// What is done with a request. Without a plan it is taken.
#[derive(Clone)]
pub(crate) enum Plan {
    Take,
    /// It is taken, and the answer is lost.
    TakeAndCut,
    /// The connection is closed before the request is read.
    Cut,
    /// It is taken, and no answer comes.
    TakeAndHold,
    /// Only this is said.
    Say(&'static str),
    /// So many are rejected.
    Reject(u8),
}

/// A record as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) uid: String,
    pub(crate) line: String,
    pub(crate) event: String,
    pub(crate) trace: Vec<u8>,
}

#[derive(Default)]
struct State {
    plan: VecDeque<Plan>,
    taken: Vec<Vec<Taken>>,
    heads: Vec<BTreeMap<String, String>>,
    resources: Vec<BTreeMap<String, String>>,
}

pub(crate) struct Collector {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Collector {
    pub(crate) fn start(plan: &[Plan]) -> Self {
        Self::serve(plan, None)
    }

    pub(crate) fn start_tls(plan: &[Plan], config: rustls::ServerConfig) -> Self {
        Self::serve(plan, Some(Arc::new(config)))
    }

    fn serve(plan: &[Plan], tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = Arc::new(Mutex::new(State {
            plan: plan.to_vec().into(),
            ..State::default()
        }));
        let collector = Self {
            port: listener.local_addr().unwrap().port(),
            state: Arc::clone(&state),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, state, tls) = (stream.unwrap(), Arc::clone(&state), tls.clone());
                std::thread::spawn(move || {
                    // A client that is killed or does not like what it sees is gone midway.
                    match tls {
                        None => answer_all(&stream, &stream, &state).ok(),
                        Some(config) => {
                            let tls = rustls::ServerConnection::new(config).unwrap();
                            answer_all(rustls::StreamOwned::new(tls, &stream), &stream, &state).ok()
                        }
                    };
                    stream.shutdown(Shutdown::Both).ok();
                });
            }
        });
        collector
    }

    pub(crate) fn url(&self) -> String {
        format!("otlp+http://127.0.0.1:{}/v1/logs", self.port)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The requests that were taken.
    pub(crate) fn batches(&self) -> Vec<Vec<Taken>> {
        self.state.lock().unwrap().taken.clone()
    }

    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.batches().concat()
    }

    /// The heads of all requests.
    pub(crate) fn heads(&self) -> Vec<BTreeMap<String, String>> {
        self.state.lock().unwrap().heads.clone()
    }

    pub(crate) fn resources(&self) -> Vec<BTreeMap<String, String>> {
        self.state.lock().unwrap().resources.clone()
    }
}

fn answer_all<S: Read + Write>(stream: S, socket: &TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while !stream.fill_buf()?.is_empty() {
        let plan = state.lock().unwrap().plan.pop_front().unwrap_or(Plan::Take);
        if matches!(plan, Plan::Cut) {
            return Ok(());
        }
        let (head, body) = request(&mut stream)?;
        assert_eq!(head["content-type"], "application/x-protobuf");
        assert_eq!(head["content-encoding"], "gzip");
        state.lock().unwrap().heads.push(head);
        let said = match plan {
            Plan::Say(said) => said.as_bytes().to_vec(),
            Plan::Reject(count) => success(&[10, 4, 8, count, 18, 0]),
            Plan::Take | Plan::TakeAndCut | Plan::TakeAndHold | Plan::Cut => success(b""),
        };
        if !matches!(plan, Plan::Say(_)) {
            take(&body, state);
        }
        match plan {
            Plan::TakeAndCut => return Ok(()),
            Plan::TakeAndHold => {
                socket.set_read_timeout(None)?;
                stream.read_exact(&mut [0])?;
            }
            Plan::Take | Plan::Cut | Plan::Say(_) | Plan::Reject(_) => {}
        }
        stream.get_mut().write_all(&said)?;
        stream.get_mut().flush()?;
    }
    Ok(())
}

fn success(body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn request(stream: &mut impl io::BufRead) -> io::Result<(BTreeMap<String, String>, Vec<u8>)> {
    let mut head = BTreeMap::new();
    let mut line = String::new();
    stream.read_line(&mut line)?;
    head.insert("request".to_owned(), line.trim_end().to_owned());
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        head.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = head["content-length"].parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}

fn take(body: &[u8], state: &Mutex<State>) {
    let mut plain = Vec::new();
    GzDecoder::new(body).read_to_end(&mut plain).unwrap();
    let request = ExportLogsServiceRequest::decode(plain.as_slice()).unwrap();
    // All that was sent is known to the protocol.
    assert_eq!(request.encode_to_vec(), plain);
    let mut batch = Vec::new();
    let mut state = state.lock().unwrap();
    for resource in request.resource_logs {
        let attributes = resource.resource.unwrap().attributes.into_iter();
        let attributes = attributes.map(|one| (one.key, text(one.value))).collect();
        state.resources.push(attributes);
        for scope in resource.scope_logs {
            assert_eq!(scope.scope.unwrap().name, "botmesh.audit");
            batch.extend(scope.log_records.into_iter().map(taken));
        }
    }
    state.taken.push(batch);
}

fn taken(record: LogRecord) -> Taken {
    let uid = record.attributes.into_iter().find(|one| one.key == "log.record.uid");
    Taken {
        uid: text(uid.unwrap().value),
        line: text(record.body),
        event: record.event_name,
        trace: record.trace_id,
    }
}

fn text(value: Option<AnyValue>) -> String {
    let value = value.unwrap().value.unwrap();
    let Any::StringValue(text) = value else {
        panic!("{value:?}")
    };
    text
}
