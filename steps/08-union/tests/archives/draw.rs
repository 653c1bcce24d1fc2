//! Archives by chance.

/// Numbers by chance, the same for the same seed (splitmix64).
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        // Seeds side by side must not give one sequence, shifted.
        Draw(Draw(seed).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Once in `n` times.
    fn once(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

const BLOCK: usize = 512;

/// An archive: entries, an end, and now and then something wrong.
pub(crate) fn archive(draw: &mut Draw) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut names = Vec::new();
    for n in 0..1 + draw.below(6) {
        if draw.once(12) {
            archive.extend(global(draw));
        }
        archive.extend(entry(draw, n, &mut names));
        if draw.once(60) {
            archive.extend([0; BLOCK]);
        }
    }
    match draw.below(8) {
        0 => {}
        1 => archive.extend([0; BLOCK]),
        2 => {
            archive.extend([0; 2 * BLOCK]);
            archive.extend(b"what is behind the end".repeat(50));
        }
        3 => archive.resize(archive.len().next_multiple_of(10240) + 10240, 0),
        _ => archive.extend([0; 2 * BLOCK]),
    }
    if draw.once(6) {
        damage(draw, &mut archive);
    }
    archive
}

/// Changes a byte of a header and makes its checksum right again, or cuts.
fn damage(draw: &mut Draw, archive: &mut Vec<u8>) {
    let block = draw.below(archive.len() / BLOCK) * BLOCK;
    match draw.below(4) {
        0 => archive.truncate(block + draw.below(BLOCK)),
        1 => drop(archive.drain(block..block + BLOCK)),
        how => {
            // The fields behind the name, so that no name leads anywhere.
            let at = block + 100 + draw.below(412);
            archive[at] = match draw.below(4) {
                0 => 0,
                1 => b' ',
                2 => b'0' + draw.below(8) as u8,
                _ => draw.next() as u8,
            };
            if how == 2 {
                sum(&mut archive[block..block + BLOCK], false);
            }
        }
    }
}

fn sum(header: &mut [u8], is_signed: bool) {
    header[148..156].fill(b' ');
    let one = |byte: &u8| match is_signed {
        true => i64::from(byte.cast_signed()),
        false => i64::from(*byte),
    };
    let sum: i64 = header.iter().map(one).sum();
    let text = format!("{:06o}\0 ", sum.max(0));
    header[148..156].copy_from_slice(&text.as_bytes()[..8]);
}

/// A number as somebody has written it, in a field of that length.
fn numeric(draw: &mut Draw, number: i64, length: usize) -> Vec<u8> {
    let width = length - 1;
    let mut field = match draw.below(if number == 0 { 16 } else { 7 }) {
        _ if number < 0 => number.to_be_bytes().to_vec(),
        0 => format!("{number:o}").into_bytes(),
        1 => format!("{number:>width$o} ").into_bytes(),
        2 => format!("{number:0>length$o}").into_bytes(),
        3 => [&[0x80][..], &number.to_be_bytes()[9 - length.min(9)..]].concat(),
        4 => format!(" {number:o} \0").into_bytes(),
        7 => vec![0; length],
        // GNU tar complains of blanks, though it goes on.
        8 if draw.once(20) => vec![b' '; length],
        _ => format!("{number:0>width$o}\0").into_bytes(),
    };
    if number < 0 || field[0] == 0x80 {
        let fill = if number < 0 { 0xff } else { 0 };
        while field.len() < length {
            field.insert(usize::from(number >= 0), fill);
        }
    }
    field.resize(length, 0);
    field
}

/// What a header says.
struct Header {
    name: Vec<u8>,
    link: Vec<u8>,
    flag: u8,
    mode: i64,
    uid: i64,
    gid: i64,
    size: i64,
    mtime: i64,
    device: (i64, i64),
    magic: &'static [u8],
    prefix: &'static [u8],
}

const V7: &[u8] = b"";
const POSIX: &[u8] = b"ustar\x0000";
const GNU: &[u8] = b"ustar  \0";

impl Header {
    fn new(name: &[u8], flag: u8, size: usize) -> Self {
        Header {
            name: name.to_vec(),
            link: Vec::new(),
            flag,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: size as i64,
            mtime: 1,
            device: (0, 0),
            magic: POSIX,
            prefix: b"",
        }
    }

    fn block(&self, draw: &mut Draw) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, length: usize, bytes: &[u8]| {
            let length = length.min(bytes.len());
            block[at..at + length].copy_from_slice(&bytes[..length]);
        };
        put(0, 100, &self.name);
        put(157, 100, &self.link);
        for (at, length, number) in [
            (100, 8, self.mode),
            (108, 8, self.uid),
            (116, 8, self.gid),
            (124, 12, self.size),
            (136, 12, self.mtime),
        ] {
            put(at, length, &numeric(draw, number, length));
        }
        put(156, 1, &[self.flag]);
        if !self.magic.is_empty() {
            put(257, 8, self.magic);
            put(265, 4, b"root");
            put(329, 8, &numeric(draw, self.device.0, 8));
            put(337, 8, &numeric(draw, self.device.1, 8));
            put(345, 155, self.prefix);
        }
        sum(&mut block, draw.once(8));
        block
    }
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(BLOCK), 0);
    padded
}

fn content(draw: &mut Draw) -> Vec<u8> {
    let length = match draw.below(5) {
        0 => 0,
        1 => BLOCK,
        _ => draw.below(1500),
    };
    let byte = draw.next() as u8;
    vec![byte; length]
}

fn name(draw: &mut Draw, n: usize) -> Vec<u8> {
    let tail = draw.of::<[u8]>(&[
        b"", b"", b"/x", b"\n", b" y", b"\xff", b"//z", b"/./z", b"\x1b[2J", b"/",
    ]);
    let head = draw.of(&["f", "f", "./f", "d/e/f"]);
    [format!("{head}{n}").as_bytes(), tail].concat()
}

/// Records of an extended header.
fn records(records: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length.to_string().len() + rest != length {
            length = length.to_string().len() + rest;
        }
        all.extend(format!("{length} ").bytes());
        all.extend([key, &b"="[..], value, b"\n"].concat());
    }
    all
}

fn extended(draw: &mut Draw, flag: u8, all: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut body = records(all);
    if draw.once(10) {
        body.extend([0; 3]);
    }
    let header = Header::new(b"PaxHeaders/x", flag, body.len());
    [&header.block(draw)[..], &padded(&body)].concat()
}

fn global(draw: &mut Draw) -> Vec<u8> {
    let record: &[(&[u8], &[u8])] = match draw.below(3) {
        0 => &[(b"comment", b"0123456789abcdef")],
        1 => &[(b"mtime", b"77.5")],
        _ => &[(b"uid", b"3"), (b"comment", b"a\nb")],
    };
    extended(draw, b'g', record)
}

/// A GNU long name or target.
fn long(draw: &mut Draw, flag: u8, name: &[u8]) -> Vec<u8> {
    let mut body = name.to_vec();
    match draw.below(4) {
        0 => {}
        1 => body.extend(b"\0\0behind\0"),
        _ => body.push(0),
    }
    let mut header = Header::new(b"././@LongLink", flag, body.len());
    header.magic = GNU;
    [&header.block(draw)[..], &padded(&body)].concat()
}

fn entry(draw: &mut Draw, n: usize, names: &mut Vec<Vec<u8>>) -> Vec<u8> {
    if draw.once(6) {
        return sparse(draw, n);
    }
    let mut name = name(draw, n);
    let flag = match draw.below(24) {
        0 if !names.is_empty() => b'1',
        1 | 2 => b'2',
        3 => b'3',
        4 => b'4',
        5..=8 => b'5',
        9 => b'6',
        10 => b'7',
        11..=14 => 0,
        15 => draw.of::<[u8]>(&[b"Z", b"A", b"8", b"s"])[0],
        _ => b'0',
    };
    let is_file = !matches!(flag, b'1'..=b'6');
    let body = match is_file && !(flag == 0 && name.ends_with(b"/")) {
        true => content(draw),
        false => Vec::new(),
    };
    let mut header = Header::new(&name, flag, body.len());
    header.magic = match draw.below(4) {
        0 if !matches!(flag, b'3' | b'4') => V7,
        1 => GNU,
        _ => POSIX,
    };
    // A size of what has no content.
    if matches!(flag, b'1'..=b'6') && draw.once(2) {
        header.size = [6, 600, 4096][draw.below(3)];
    }
    // Others than a link to it would change it.
    if flag != b'1' && draw.once(2) {
        header.mode = [0o755, 0o4755, 0o1777, 0, 0o100_644][draw.below(5)];
        header.uid = [0, 5, 70_000, 3_000_000][draw.below(4)];
        header.gid = [0, 6, 4_294_967_294][draw.below(3)];
        header.mtime = [0, 1_600_000_000, -1, -5_000, 8_589_934_592][draw.below(5)];
    }
    match flag {
        b'1' => header.link = names[draw.below(names.len())].clone(),
        b'2' => header.link = draw.of(&[&b"to"[..], b"a\nb", b"\xfe"]).to_vec(),
        b'3' | b'4' => header.device = [(1, 3), (7, 300), (0, 1), (4095, 0)][draw.below(4)],
        _ => {}
    }
    if header.magic == POSIX && draw.once(6) {
        header.prefix = b"pre/fix";
        name = [b"pre/fix/", &name[..]].concat();
    }
    let mut before = Vec::new();
    let mut values: Vec<(&[u8], Vec<u8>)> = Vec::new();
    let long_name = format!("L{n}/{}", "l".repeat(draw.below(200)));
    match draw.below(10) {
        0 => {
            if draw.once(3) {
                before.extend(long(draw, b'L', long_name.as_bytes()));
            }
            before.extend(long(draw, b'L', long_name.as_bytes()));
            name = long_name.into_bytes();
        }
        1 => {
            values.push((b"path", long_name.clone().into_bytes()));
            name = long_name.into_bytes();
        }
        _ => {}
    }
    if flag == b'2' && draw.once(3) {
        let target = "t".repeat(1 + draw.below(200));
        match draw.once(2) {
            true => before.extend(long(draw, b'K', target.as_bytes())),
            false => values.push((b"linkpath", (target + "\nt").into_bytes())),
        }
    }
    let is_link = flag == b'1';
    for (key, value) in [
        (&b"mtime"[..], &b"1234567890.123456789"[..]),
        (b"mtime", b"-1.25"),
        (b"mtime", b"5."),
        (b"uid", b"4000000"),
        (b"comment", b"one\ntwo\0=12 path=x\n"),
        (b"SCHILY.xattr.user.x", b"\n\0= 12 a=b"),
        (b"SCHILY.xattr.user.e", b""),
        (b"hdrcharset", b"BINARY"),
        (b"VENDOR.key", b"value"),
    ] {
        if !is_link && draw.once(14) {
            values.push((key, value.to_vec()));
        }
    }
    // GNU tar refuses these.
    for (key, value) in [(&b"mtime"[..], &b""[..]), (b"gid", b""), (b"uid", b"+7")] {
        if !is_link && draw.once(150) {
            values.push((key, value.to_vec()));
        }
    }
    // In the header then stands another size, as for files of many gigabytes.
    if is_file && draw.once(8) {
        values.push((b"size", body.len().to_string().into_bytes()));
        header.size *= draw.below(2) as i64;
    }
    if !values.is_empty() {
        let values: Vec<(&[u8], &[u8])> = values.iter().map(|(k, v)| (*k, &v[..])).collect();
        let flag = if draw.once(10) { b'X' } else { b'x' };
        if draw.once(8) {
            before.extend(extended(draw, flag, &values));
        }
        before.extend(extended(draw, flag, &values));
    }
    if is_file && !name.ends_with(b"/") {
        names.push(name);
    }
    [before, header.block(draw).to_vec(), padded(&body)].concat()
}

/// A file with holes, in one of four formats.
fn sparse(draw: &mut Draw, n: usize) -> Vec<u8> {
    let name = format!("sparse{n}");
    let mut extents = Vec::new();
    let mut end = 0;
    for _ in 0..draw.below(9) {
        let offset = end + BLOCK * draw.below(4);
        let length = BLOCK * (1 + draw.below(3));
        extents.push((offset, length));
        end = offset + length;
    }
    // The last piece need not be a whole block; a hole at the end has an
    // empty one.
    if let Some((offset, length)) = extents.last_mut()
        && draw.once(2)
    {
        *length -= 100;
        end = *offset + *length;
    }
    let size = end + BLOCK * draw.below(3);
    if size > end || extents.is_empty() {
        extents.push((size, 0));
    }
    let data: usize = extents.iter().map(|(_, length)| length).sum();
    let byte = draw.next() as u8;
    let data = vec![byte; data];
    let texts = |join: &str| {
        let numbers = extents.iter().flat_map(|(offset, length)| [offset, length]);
        let texts: Vec<String> = numbers.map(usize::to_string).collect();
        texts.join(join)
    };
    let (count, size_text) = (extents.len().to_string(), size.to_string());
    match draw.below(4) {
        0 => old_sparse(draw, name.as_bytes(), &extents, size, &data),
        1 => {
            let numbers = texts(",");
            let mut all: Vec<(&[u8], &[u8])> = vec![
                (b"GNU.sparse.size", size_text.as_bytes()),
                (b"GNU.sparse.numblocks", count.as_bytes()),
            ];
            let keys: [&[u8]; 2] = [b"GNU.sparse.offset", b"GNU.sparse.numbytes"];
            for (at, number) in numbers.split(',').enumerate() {
                all.push((keys[at % 2], number.as_bytes()));
            }
            let header = Header::new(name.as_bytes(), b'0', data.len());
            let before = extended(draw, b'x', &all);
            [before, header.block(draw).to_vec(), padded(&data)].concat()
        }
        2 => {
            let map = texts(",");
            let all: &[(&[u8], &[u8])] = &[
                (b"GNU.sparse.size", size_text.as_bytes()),
                (b"GNU.sparse.numblocks", count.as_bytes()),
                (b"GNU.sparse.map", map.as_bytes()),
                (b"GNU.sparse.name", name.as_bytes()),
            ];
            let header = Header::new(b"GNUSparseFile.0/x", b'0', data.len());
            let before = extended(draw, b'x', all);
            [before, header.block(draw).to_vec(), padded(&data)].concat()
        }
        _ => {
            let map = padded(format!("{count}\n{}\n", texts("\n")).as_bytes());
            let all: &[(&[u8], &[u8])] = &[
                (b"GNU.sparse.major", b"1"),
                (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.name", name.as_bytes()),
                (b"GNU.sparse.realsize", size_text.as_bytes()),
            ];
            let header = Header::new(b"GNUSparseFile.0/x", b'0', map.len() + data.len());
            let before = extended(draw, b'x', all);
            [before, header.block(draw).to_vec(), map, padded(&data)].concat()
        }
    }
}

fn old_sparse(
    draw: &mut Draw,
    name: &[u8],
    extents: &[(usize, usize)],
    size: usize,
    data: &[u8],
) -> Vec<u8> {
    let mut header = Header::new(name, b'S', data.len());
    header.magic = GNU;
    let mut block = header.block(draw);
    let put = |block: &mut [u8], extents: &[(usize, usize)]| {
        for (entry, (offset, length)) in block.chunks_exact_mut(24).zip(extents) {
            entry[..12].copy_from_slice(format!("{offset:011o}\0").as_bytes());
            entry[12..].copy_from_slice(format!("{length:011o}\0").as_bytes());
        }
    };
    let (first, more) = extents.split_at(extents.len().min(4));
    put(&mut block[386..482], first);
    block[482] = u8::from(!more.is_empty());
    block[483..495].copy_from_slice(format!("{size:011o}\0").as_bytes());
    sum(&mut block, false);
    let mut archive = block.to_vec();
    let mut chunks = more.chunks(21).peekable();
    while let Some(chunk) = chunks.next() {
        let mut block = [0; BLOCK];
        put(&mut block[..504], chunk);
        block[504] = u8::from(chunks.peek().is_some());
        archive.extend(block);
    }
    archive.extend(padded(data));
    archive
}
