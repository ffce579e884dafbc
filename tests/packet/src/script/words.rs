//! The words of a script: hosts, interfaces, packets.

use anyhow::{Context, Result, bail, ensure};
use proxy_common::Ip;

use crate::craft::{ACK, Body, Checksum, Craft, FIN, INIT, PSH, RST, SYN};
use crate::node::{Host, Port, loopback};

/// A packet as a script describes it.
#[derive(Clone, Debug)]
pub(super) enum Packet {
    /// What came out of the hook before.
    It,
    /// A whole packet.
    Whole(Craft),
    /// One fragment of a datagram: which one, where the others begin, and the identification.
    Piece(Craft, usize, Vec<u16>, u32),
}

impl Packet {
    /// The bytes; `last` is what came out of the hook before, from its IP header on.
    pub(super) fn bytes(&self, ethernet: bool, last: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::It => {
                ensure!(!last.is_empty(), "`it` before any packet");
                Ok(if ethernet { with_link(last) } else { last.to_vec() })
            }
            Self::Whole(craft) => Ok(craft.bytes(ethernet)),
            Self::Piece(craft, which, offsets, id) => {
                let pieces = craft.fragments(*id, offsets, ethernet);
                pieces
                    .get(*which)
                    .cloned()
                    .with_context(|| format!("there is no piece {which}"))
            }
        }
    }
}

fn with_link(network: &[u8]) -> Vec<u8> {
    let kind = if network.first().is_some_and(|first| first >> 4 == 6) {
        [0x86, 0xdd]
    } else {
        [8, 0]
    };
    [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2][..], &kind, network].concat()
}

/// An interface.
pub(super) fn port(word: &str) -> Result<Port> {
    Ok(match word {
        "up" => Port::Uplink,
        "pod1" => Port::Pod1,
        "pod2" => Port::Pod2,
        "ovl" => Port::Overlay,
        "tun" => Port::Tunnel,
        _ => bail!("no interface {word}: up, pod1, pod2, ovl, tun"),
    })
}

/// A host's address.
pub(super) fn address(word: &str, v6: bool) -> Result<Ip> {
    if word == "localhost" {
        return Ok(loopback(v6));
    }
    Ok(host(word)?.ip(v6))
}

/// A host.
pub(super) fn host(word: &str) -> Result<Host> {
    let digits = word
        .find(|letter: char| letter.is_ascii_digit())
        .unwrap_or(word.len());
    let (name, number) = word.split_at(digits);
    let number = number.parse::<u8>();
    Ok(match (name, number) {
        ("node", _) => Host::Node,
        ("gate", _) => Host::PodGate,
        ("overlay", _) => Host::OverlayGate,
        ("tunnel", _) => Host::TunnelGate,
        ("pod", Ok(1)) => Host::Pod1,
        ("pod", Ok(2)) => Host::Pod2,
        ("lost", _) => Host::Lost,
        ("router", _) => Host::Router,
        ("remote", Ok(n)) => Host::Remote(n),
        ("out", Ok(n)) => Host::Outside(n),
        ("warrior", Ok(n)) => Host::Warrior(n),
        ("vip", Ok(n)) => Host::Vip(n),
        ("lb", Ok(n)) => Host::Balancer(n),
        _ => bail!(
            "no host {word}: node, gate, overlay, tunnel, pod1, pod2, lost, router, remoteN, outN, warriorN, vipN, lbN"
        ),
    })
}

/// `host:port`.
pub(super) fn endpoint(word: &str, v6: bool) -> Result<(Ip, u16)> {
    let (host, port) = word
        .split_once(':')
        .with_context(|| format!("{word} is not host:port"))?;
    Ok((
        address(host, v6)?,
        port.parse().with_context(|| format!("{port} is no port"))?,
    ))
}

/// A packet that has been sent on by this node: one hop less, unless it says how many are left.
pub(super) fn sent_on(words: &[&str], v6: bool) -> Result<Packet> {
    let mut packet = packet(words, v6)?;
    if let Packet::Whole(craft) | Packet::Piece(craft, ..) = &mut packet
        && !words.contains(&"ttl")
    {
        craft.ttl -= 1;
    }
    Ok(packet)
}

/// A packet: `it`, `tcp A:P > B:P FLAGS …`, `udp A:P > B:P …`, `sctp A:P > B:P CHUNK …` or `icmp KIND A > B …`.
pub(super) fn packet(words: &[&str], v6: bool) -> Result<Packet> {
    match words {
        ["it"] => Ok(Packet::It),
        ["tcp", source, ">", destination, letters, rest @ ..] => {
            let craft = Craft::tcp(endpoint(source, v6)?, endpoint(destination, v6)?, flags(letters)?);
            details(craft, rest, v6)
        }
        ["udp", source, ">", destination, rest @ ..] => details(
            Craft::udp(endpoint(source, v6)?, endpoint(destination, v6)?),
            rest,
            v6,
        ),
        ["sctp", source, ">", destination, name, rest @ ..] => {
            let craft = Craft::sctp(endpoint(source, v6)?, endpoint(destination, v6)?, chunk(name)?);
            details(craft.data(vec![7; 16]), rest, v6)
        }
        ["icmp", kind, source, ">", destination, rest @ ..] => {
            let (source, destination) = (address(source, v6)?, address(destination, v6)?);
            details(
                Craft::icmp(source, destination, icmp_kind(kind, v6)?, [0; 4]),
                rest,
                v6,
            )
        }
        _ => bail!("no packet: {}", words.join(" ")),
    }
}

fn flags(letters: &str) -> Result<u8> {
    letters.chars().try_fold(0, |flags, letter| {
        Ok(flags
            | match letter {
                'S' => SYN,
                'A' => ACK,
                'F' => FIN,
                'R' => RST,
                'P' => PSH,
                _ => bail!("no TCP flag {letter}"),
            })
    })
}

fn chunk(name: &str) -> Result<u8> {
    let names = [
        "DATA",
        "INIT",
        "INIT-ACK",
        "SACK",
        "HEARTBEAT",
        "HEARTBEAT-ACK",
        "ABORT",
        "SHUTDOWN",
        "SHUTDOWN-ACK",
        "ERROR",
        "COOKIE-ECHO",
        "COOKIE-ACK",
        "ECNE",
        "CWR",
        "SHUTDOWN-COMPLETE",
    ];
    let index = names.iter().position(|known| *known == name);
    Ok(u8::try_from(
        index.with_context(|| format!("no SCTP chunk {name}"))?,
    )?)
}

fn icmp_kind(kind: &str, v6: bool) -> Result<(u8, u8)> {
    Ok(match (kind, v6) {
        ("too-big", false) => (3, 4),
        ("too-big", true) => (2, 0),
        ("port-unreachable", false) => (3, 3),
        ("port-unreachable", true) => (1, 4),
        ("expired", false) => (11, 0),
        ("expired", true) => (3, 0),
        ("echo", false) => (8, 0),
        ("echo", true) => (128, 0),
        _ => bail!("no ICMP message {kind}"),
    })
}

/// What follows the addresses.
fn details(mut craft: Craft, words: &[&str], v6: bool) -> Result<Packet> {
    let mut rest = words;
    loop {
        rest = match rest {
            [] => return Ok(Packet::Whole(craft)),
            ["about", quoted @ ..] => return about(craft, quoted, v6),
            ["piece", which, "of", offsets, "id", id] => {
                let offsets = offsets.split(',').map(str::parse).collect::<Result<_, _>>()?;
                return Ok(Packet::Piece(craft, which.parse()?, offsets, id.parse()?));
            }
            ["vlan", rest @ ..] => {
                craft.vlan = Some(5);
                rest
            }
            ["nosum", rest @ ..] => {
                craft.checksum = Checksum::None;
                rest
            }
            ["options", rest @ ..] => {
                craft.options = vec![1, 1, 1, 0];
                craft.extensions = vec![(60, vec![1, 4, 0, 0, 0, 0])];
                rest
            }
            // The T bit of an ABORT.
            ["t", rest @ ..] => {
                if let Body::Sctp { flags, .. } = &mut craft.body {
                    *flags = 1;
                }
                rest
            }
            // As weir makes its own packets.
            ["weir", rest @ ..] => {
                (craft.ttl, craft.tos, craft.id) = (64, 0, 0);
                rest
            }
            [name, value, rest @ ..] => {
                set(&mut craft, name, value)?;
                rest
            }
            [word] => bail!("what is {word}?"),
        }
    }
}

fn about(mut craft: Craft, quoted: &[&str], v6: bool) -> Result<Packet> {
    let quoted = packet(quoted, v6)?;
    // Behind the header of an INIT is the only tag that it has.
    let more = match &quoted {
        Packet::Whole(Craft {
            body: Body::Sctp { chunk: INIT, .. },
            ..
        }) => 12,
        _ => 0,
    };
    let quoted = quoted.bytes(false, &[])?;
    let Body::Icmp { .. } = craft.body else {
        bail!("only ICMP is about something")
    };
    // No more than eight bytes of the transport header: behind them is a checksum that nobody corrects.
    let quoted = quoted
        .get(..more + if v6 { 48 } else { 28 })
        .context("too short to be quoted")?;
    craft.data = quoted.to_vec();
    Ok(Packet::Whole(craft))
}

fn set(craft: &mut Craft, name: &str, value: &str) -> Result<()> {
    let number: u32 = value
        .parse()
        .with_context(|| format!("{name} wants a number, not {value}"))?;
    match (name, &mut craft.body) {
        ("data", _) => craft.data = (0..number).map(|at| at.to_le_bytes()[0]).collect(),
        ("ttl", _) => craft.ttl = u8::try_from(number)?,
        ("tos", _) => craft.tos = u8::try_from(number)?,
        ("seq", Body::Tcp { seq, .. }) => *seq = number,
        ("ack", Body::Tcp { ack, .. }) => *ack = number,
        ("win", Body::Tcp { window, .. }) => *window = u16::try_from(number)?,
        ("tag", Body::Sctp { tag, .. }) => *tag = number,
        ("mtu", Body::Icmp { rest, .. }) => *rest = number.to_be_bytes(),
        _ => bail!("what is {name}?"),
    }
    Ok(())
}
