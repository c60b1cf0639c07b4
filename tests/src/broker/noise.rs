//! Text of a client in the broker's own log: a client that joins a group is
//! answered with a member id made of its `client.id`, and the group coordinator
//! logs that at INFO. No JVM: two requests of Kafka's protocol, written by hand.
//! (A healthy broker prints a producer's `client.id` in no line.)

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::Broker;

/// A `client.id` that looks like a failure of a disk.
pub const LOOKALIKE: &str = "Error while flushing log for orders-0 in dir /x";

const JOIN_GROUP: i16 = 11;
const FIND_COORDINATOR: i16 = 10;
/// The error that goes with a new member id.
const MEMBER_ID_REQUIRED: i16 = 79;

impl Broker {
    /// Makes the broker log this `client.id` in an INFO line of its own,
    /// `… Created a new member id CLIENT-ID-uuid and …`. The first call makes
    /// the broker create `__consumer_offsets`, in one of the log.dirs.
    pub fn log_client_id(&self, client_id: &str) -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(self.bootstrap()).context("connect to the broker")?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let error = join(&mut stream, client_id).context("join a group")?;
            if error == MEMBER_ID_REQUIRED {
                return Ok(());
            }
            // The coordinator is loading, or its topic is being made.
            anyhow::ensure!(Instant::now() < until, "join a group: kafka error {error}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn join(stream: &mut TcpStream, client_id: &str) -> anyhow::Result<i16> {
    let mut find = Request::new(FIND_COORDINATOR, 1, client_id);
    find.string("noise").bytes(&[0]);
    find.send(stream)?;
    let mut join = Request::new(JOIN_GROUP, 4, client_id);
    join.string("noise");
    // Session and rebalance time-outs; no member id yet.
    join.int32(10_000).int32(10_000).string("");
    join.string("consumer").int32(1).string("range").int32(0);
    let answer = join.send(stream)?;
    // Correlation id and throttle time come before the error.
    let error = answer.get(8..10).context("read the answer: too short")?;
    Ok(i16::from_be_bytes([error[0], error[1]]))
}

/// A request with header version 1, its length yet to be put in front.
struct Request(Vec<u8>);

impl Request {
    fn new(api_key: i16, api_version: i16, client_id: &str) -> Self {
        let mut request = Request(Vec::new());
        request
            .bytes(&api_key.to_be_bytes())
            .bytes(&api_version.to_be_bytes());
        request.int32(1).string(client_id);
        request
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend(bytes);
        self
    }

    fn int32(&mut self, value: i32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    fn string(&mut self, text: &str) -> &mut Self {
        self.bytes(&(text.len() as i16).to_be_bytes())
            .bytes(text.as_bytes())
    }

    fn send(&self, stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
        stream.write_all(&(self.0.len() as u32).to_be_bytes())?;
        stream.write_all(&self.0)?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut answer = Vec::new();
        let length = u64::from(u32::from_be_bytes(length));
        stream.take(length).read_to_end(&mut answer)?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_header_in_the_order_of_the_protocol() {
        let mut request = Request::new(JOIN_GROUP, 4, "a b");
        request.int32(7);
        let expected = b"\0\x0b\0\x04\0\0\0\x01\0\x03a b\0\0\0\x07";
        assert_eq!(request.0, expected);
    }
}
