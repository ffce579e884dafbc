//! What the kernel's verifier says of every program, as a table, and bounds that no program may pass.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{Program, ProgramInfo};
use aya::{Ebpf, EbpfLoader};
use proxy_agent::kernel::for_this_kernel;
use weir_packet::kernel;

/// A tenth of what the kernel takes (1,000,000), so that older verifiers, which prune less, take it too.
const VERIFIED: u32 = 100_000;
/// Bytes of stack of the whole call chain, of the kernel's 512.
const STACK: u16 = 448;

/// A line of the table.
struct Row {
    name: String,
    verified: u32,
    translated: u32,
    jited: u32,
    stack: u16,
}

#[test]
fn every_program_stays_within_bounds() -> Result<()> {
    if !weir_lab::require_root() {
        return Ok(());
    }
    let object = for_this_kernel(kernel::read_object()?.into());
    let mut ebpf = kernel::open(
        EbpfLoader::new().override_global("AYA_LOG_LEVEL", &0_u8, false),
        &object,
    )?;
    let mut names: Vec<_> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    names.sort();
    let rows = names
        .iter()
        .map(|name| examine(&mut ebpf, name))
        .collect::<Result<Vec<_>>>()?;
    println!(
        "| program | instructions verified | bytes translated | bytes of machine code | bytes of stack |"
    );
    println!("|---|---|---|---|---|");
    for row in &rows {
        println!(
            "| {} | {} | {} | {} | {} |",
            row.name, row.verified, row.translated, row.jited, row.stack
        );
    }
    assert_eq!(rows.len(), 15, "programs in the object");
    for Row {
        name,
        verified,
        stack,
        ..
    } in rows
    {
        assert!(
            verified <= VERIFIED,
            "{name}: {verified} instructions verified, more than {VERIFIED}"
        );
        assert!(
            stack <= STACK,
            "{name}: {stack} bytes of stack, more than {STACK}"
        );
    }
    Ok(())
}

fn examine(ebpf: &mut Ebpf, name: &str) -> Result<Row> {
    let program = ebpf.program_mut(name).context("a name without a program")?;
    let loaded: Result<ProgramInfo, _> = match program {
        Program::SchedClassifier(program) => program.load().and_then(|()| program.info()),
        Program::CgroupSockAddr(program) => program.load().and_then(|()| program.info()),
        _ => bail!("{name} is of a kind that weir does not use"),
    };
    let info = loaded.with_context(|| format!("the kernel refuses {name}"))?;
    Ok(Row {
        name: name.to_owned(),
        verified: info
            .verified_instruction_count()
            .context("this kernel does not count verified instructions")?,
        translated: info
            .size_translated()
            .context("this kernel does not show the translated program")?,
        jited: info.size_jitted(),
        stack: stack(&instructions(info.id())?)?,
    })
}

/// The program as the kernel runs it, eight bytes an instruction.
fn instructions(id: u32) -> Result<Vec<u8>> {
    let path = std::env::temp_dir().join(format!("weir-packet-{}-{id}", std::process::id()));
    let output = Command::new("bpftool")
        .args(["prog", "dump", "xlated", "id", &id.to_string(), "file"])
        .arg(&path)
        .output()
        .context("cannot run bpftool")?;
    ensure!(
        output.status.success(),
        "bpftool: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let bytes = fs::read(&path)?;
    fs::remove_file(&path)?;
    Ok(bytes)
}

/// A function of a program: the depth of its frame, and whom it calls.
#[derive(Default)]
struct Function {
    depth: u16,
    calls: Vec<usize>,
}

/// Bytes of stack of the deepest call chain: each function's frame is as deep as the lowest place that it reaches by
/// the frame pointer, rounded up to 32 as the verifier does it.
fn stack(program: &[u8]) -> Result<u16> {
    let (instructions, []) = program.as_chunks::<8>() else {
        bail!("not whole instructions")
    };
    let mut functions = BTreeMap::from([(0, Function::default())]);
    for (at, instruction) in instructions.iter().enumerate() {
        if let Some(target) = callee(at, *instruction) {
            functions.insert(target?, Function::default());
        }
    }
    let mut pointer = None;
    for (at, instruction) in instructions.iter().enumerate() {
        let Some((_, function)) = functions.range_mut(..=at).next_back() else {
            continue;
        };
        if let Some(target) = callee(at, *instruction) {
            function.calls.push(target?);
        }
        function.depth = function.depth.max(depth(*instruction, pointer));
        let [code, registers, ..] = instruction;
        pointer = match (code, registers >> 4) {
            (0xbf, 10) => Some(registers & 15),
            _ if pointer == Some(registers & 15) => None,
            _ => pointer,
        };
    }
    Ok(chain(&functions, 0))
}

/// The instruction that a call of one of the program's own functions goes to.
fn callee(at: usize, [code, registers, off_a, off_b, ..]: [u8; 8]) -> Option<Result<usize>> {
    let own = code == 0x85 && registers >> 4 == 1;
    own.then(|| {
        let offset = isize::from(i16::from_le_bytes([off_a, off_b])) + 1;
        at.checked_add_signed(offset).context("a call to nowhere")
    })
}

/// How deep into the stack an instruction reaches; `pointer` is a register that holds the frame pointer.
fn depth(instruction: [u8; 8], pointer: Option<u8>) -> u16 {
    let [code, registers, off_a, off_b, imm @ ..] = instruction;
    let offset = i16::from_le_bytes([off_a, off_b]);
    let (destination, source) = (registers & 15, registers >> 4);
    match code & 7 {
        // LDX by r10; ST and STX to r10.
        1 if source == 10 => offset.min(0).unsigned_abs(),
        2 | 3 if destination == 10 => offset.min(0).unsigned_abs(),
        // add rX, -N, where rX is r10.
        7 if code & 0xf8 == 0 && pointer == Some(destination) => {
            u16::try_from(i32::from_le_bytes(imm).min(0).unsigned_abs()).unwrap_or(u16::MAX)
        }
        _ => 0,
    }
}

fn chain(functions: &BTreeMap<usize, Function>, at: usize) -> u16 {
    let Some(function) = functions.get(&at) else {
        return 0;
    };
    let below = function
        .calls
        .iter()
        .map(|callee| chain(functions, *callee))
        .max()
        .unwrap_or(0);
    function.depth.max(1).next_multiple_of(32) + below
}
