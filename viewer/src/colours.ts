// Colour maps: a few colours each, and the 256 between them.

const STOPS: Record<string, string[]> = {
    viridis: ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"],
    cividis: ["00224e", "123570", "3b496c", "575d6d", "707173", "8a8678", "a59c74", "c3b369", "e1cc55", "fee838"],
    inferno: ["000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06", "f7d13d", "fcffa4"],
    grey: ["000000", "ffffff"],
    "blue-red": ["2166ac", "67a9cf", "d1e5f0", "f7f7f7", "fddbc7", "ef8a62", "b2182b"],
};

export const COLOUR_MAPS = Object.keys(STOPS);

export function coloursOf(name: string): Uint8Array {
    const stops = STOPS[name].map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
    const table = new Uint8Array(256 * 4);
    for (let i = 0; i < 256; i++) {
        const place = (i / 255) * (stops.length - 1);
        const left = Math.min(Math.floor(place), stops.length - 2);
        for (let c = 0; c < 3; c++) {
            const colour = stops[left][c] + (place - left) * (stops[left + 1][c] - stops[left][c]);
            table[4 * i + c] = Math.round(colour);
        }
        table[4 * i + 3] = 255;
    }
    return table;
}
