// Start the page: with what a server tells, or with what came along in an exported folder.

import { notice } from "./elements";
import { Page } from "./page";
import { HttpStore, OverviewStore, type Store } from "./stores";
import type { Catalogue } from "./tiles";

interface Overview {
    catalogue: Catalogue;
    tiles: Record<string, string>;
}

async function start(): Promise<void> {
    try {
        const overview = (window as unknown as { cpikanOverview?: Overview }).cpikanOverview;
        let store: Store;
        let catalogue: Catalogue;
        if (location.protocol === "file:" && overview !== undefined) {
            [store, catalogue] = [new OverviewStore(overview.tiles), overview.catalogue];
        } else {
            catalogue = (await (await fetch("maps.json")).json()) as Catalogue;
            store = new HttpStore(catalogue.token !== null); // a web server that only has files sends one at a time
        }
        (window as unknown as { cpikan: Page }).cpikan = new Page(catalogue, store);
    } catch (failure) {
        notice((failure as Error).message);
    }
}

void start();
