// Where the bytes of tiles come from: a server, a folder that was picked, the page itself.

export interface Store {
    read(path: string): Promise<ArrayBuffer>;
}

// The file does not hold it.
export class MissingTile extends Error {}

// It is somewhere, but this page cannot read it.
export class OutOfReach extends Error {}

const MOST = 16; // tiles of a request
const FAILED = 0x80000000; // in the length of a tile: a reason follows in its place

interface Waiting {
    path: string;
    resolve: (buffer: ArrayBuffer) => void;
    reject: (failure: Error) => void;
}

// Tiles that are asked for together come together: a request costs as much as a tile, and what comes apart is drawn twice.
export class HttpStore implements Store {
    private waiting: Waiting[] = [];

    constructor(private readonly together: boolean) {}

    read(path: string): Promise<ArrayBuffer> {
        if (!this.together) {
            return this.alone(path);
        }
        if (!this.waiting.length) {
            queueMicrotask(() => {
                const { waiting } = this;
                this.waiting = [];
                for (let at = 0; at < waiting.length; at += MOST) {
                    void this.fetchAll(waiting.slice(at, at + MOST));
                }
            });
        }
        return new Promise((resolve, reject) => this.waiting.push({ path, resolve, reject }));
    }

    private async alone(path: string): Promise<ArrayBuffer> {
        const answer = await fetch(path);
        if (!answer.ok) {
            throw new MissingTile(await answer.text());
        }
        return answer.arrayBuffer();
    }

    private async fetchAll(waiting: Waiting[]): Promise<void> {
        try {
            const body = await this.alone(`tiles?${waiting.map(({ path }) => path).join("+")}`);
            const view = new DataView(body);
            let at = 0;
            for (const { resolve, reject } of waiting) {
                const told = view.getUint32(at, true);
                const length = told % FAILED;
                const content = body.slice(at + 4, at + 4 + length);
                at += 4 + length;
                told >= FAILED ? reject(new MissingTile(new TextDecoder().decode(content).trim())) : resolve(content);
            }
        } catch (failure) {
            waiting.forEach(({ reject }) => reject(failure as Error));
        }
    }
}

// The files of a folder that the reader of the page picked: pages opened from disk may not fetch.
export class FolderStore implements Store {
    constructor(private readonly files: Map<string, File>) {}

    async read(path: string): Promise<ArrayBuffer> {
        const file = this.files.get(path);
        if (file === undefined) {
            throw new MissingTile(`${path} is not in the folder`);
        }
        return file.arrayBuffer();
    }
}

// The coarsest level, which came with the page.
export class OverviewStore implements Store {
    constructor(private readonly tiles: Record<string, string>) {}

    async read(path: string): Promise<ArrayBuffer> {
        if (!(path in this.tiles)) {
            throw new OutOfReach(path);
        }
        return Uint8Array.from(atob(this.tiles[path]), (letter) => letter.charCodeAt(0)).buffer;
    }
}
