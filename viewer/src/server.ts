// What the page asks of its server beside tiles; an exported folder has none.

export interface Server {
    get<T>(path: string): Promise<T>;
    post<T>(path: string, body: unknown): Promise<T>;
}

async function answered<T>(answer: Response): Promise<T> {
    if (!answer.ok) {
        throw new Error(await answer.text());
    }
    return (await answer.json()) as T;
}

export function serverOf(token: string | null): Server | null {
    if (token === null) {
        return null;
    }
    return {
        get: async (path) => answered(await fetch(path)),
        post: async (path, body) =>
            answered(await fetch(path, { method: "POST", headers: { "X-Cpikan-Token": token }, body: JSON.stringify(body) })),
    };
}
