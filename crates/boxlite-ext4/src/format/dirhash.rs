//! The hash that orders names in indexed directories: half MD4 over unsigned characters.

const K2: u32 = 0x5a82_7999;
const K3: u32 = 0x6ed9_eba1;
/// Hash value that marks the end of a directory for the kernel; no name may have it.
const END: u32 = 0x7fff_ffff << 1;

/// The major hash of a name under the file system's hash seed; its lowest bit is 0.
pub(crate) fn hash(name: &[u8], seed: &[u32; 4]) -> u32 {
    let mut state = *seed;
    let mut rest = name;
    while !rest.is_empty() {
        transform(&mut state, &words(rest));
        rest = &rest[rest.len().min(32)..];
    }
    let hash = state[1] & !1;
    if hash == END { END - 2 } else { hash }
}

/// Up to 32 bytes as words, highest byte first, padded by the length of what is left.
fn words(rest: &[u8]) -> [u32; 8] {
    let length = rest.len() as u32;
    let mut pad = length | length << 8;
    pad |= pad << 16;
    let mut words = [pad; 8];
    for (word, bytes) in words.iter_mut().zip(rest[..rest.len().min(32)].chunks(4)) {
        for &byte in bytes {
            *word = u32::from(byte).wrapping_add(*word << 8);
        }
    }
    words
}

fn transform(state: &mut [u32; 4], input: &[u32; 8]) {
    type Mix = fn(u32, u32, u32) -> u32;
    let choose: Mix = |x, y, z| z ^ (x & (y ^ z));
    let majority: Mix = |x, y, z| (x & y).wrapping_add((x ^ y) & z);
    let parity: Mix = |x, y, z| x ^ y ^ z;
    let rounds: [(Mix, u32, [usize; 8], [u32; 4]); 3] = [
        (choose, 0, [0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19]),
        (majority, K2, [1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13]),
        (parity, K3, [3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15]),
    ];
    let [mut a, mut b, mut c, mut d] = *state;
    for (mix, constant, order, shifts) in rounds {
        for (step, index) in order.into_iter().enumerate() {
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(input[index]).wrapping_add(constant);
            (a, b, c, d) = (d, sum.rotate_left(shifts[step % 4]), b, c);
        }
    }
    for (word, mixed) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(mixed);
    }
}
