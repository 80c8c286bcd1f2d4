//! Random numbers that are the same everywhere for the same seed.

/// The generator of Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
pub struct SplitMix64(u64);

impl SplitMix64 {
    pub fn new(seed: u64) -> SplitMix64 {
        SplitMix64(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number distributed as the curve says, at one of so many places in each per mille: whole
    /// numbers all the way, so that no machine rounds differently.
    pub fn on_curve(&mut self, curve: &[(u64, u64)], parts: u64) -> u64 {
        let at = self.next() % (1_000 * parts);
        let step = curve
            .windows(2)
            .find(|step| at < step[1].0 * parts)
            .expect("the curve ends at 1000 per mille");
        let ((from, low), (to, high)) = (step[0], step[1]);
        low + (high - low) * (at - from * parts) / ((to - from) * parts)
    }
}
