/**
 * Which selectors pick which labelled things, kept up to date as either changes (pure, in memory).
 *
 * In: things with their labels, selectors under a name; null when gone. Out: what the change made match, or no longer. Never: a look
 * at all selectors because one thing changed, or at all things because one selector did, where a label that the selector asks
 * for narrows it down.
 */
import { type Labels, type Requirement, requirementOf, type Selector, selects } from '../model/selector.ts';

interface Thing {
  readonly labels: Labels;
  /** Names of the selectors that pick it; seldom any, of a hundred thousand things. */
  pickedBy: ReadonlySet<string>;
}

interface Picker {
  readonly selector: Selector;
  readonly places: readonly string[];
  readonly picks: Set<string>;
}

export interface Moves {
  readonly came: readonly string[];
  readonly went: readonly string[];
}

const NONE: Moves = { came: [], went: [] };

export class LabelIndex {
  static readonly #nobody: ReadonlySet<string> = new Set();
  readonly #things = new Map<string, Thing>();
  readonly #pickers = new Map<string, Picker>();
  /** Things and pickers by `key`, `key=value`; pickers that no label narrows down stand under ''. */
  readonly #thingsAt = new Map<string, Set<string>>();
  readonly #pickersAt = new Map<string, Set<string>>();

  /** @returns the names of the selectors that now pick it, and no longer do */
  setThing(id: string, labels: Labels | null): Moves {
    const old = this.#things.get(id);
    if (labels === null && old === undefined) return NONE;
    for (const place of old === undefined ? [] : placesOfLabels(old.labels))
      remove(this.#thingsAt, place, id);
    const before = old?.pickedBy ?? LabelIndex.#nobody;
    const now = labels === null ? LabelIndex.#nobody : this.#pickersOf(labels);
    if (labels === null) this.#things.delete(id);
    else {
      this.#things.set(id, { labels, pickedBy: now });
      for (const place of placesOfLabels(labels)) add(this.#thingsAt, place, id);
    }
    const moves = difference(before, now);
    for (const name of moves.came) this.#pickers.get(name)!.picks.add(id);
    for (const name of moves.went) this.#pickers.get(name)!.picks.delete(id);
    return moves;
  }

  /** @returns the ids of the things that it now picks, and no longer does */
  setSelector(name: string, selector: Selector | null): Moves {
    const old = this.#pickers.get(name);
    if (selector === null && old === undefined) return NONE;
    for (const place of old?.places ?? []) remove(this.#pickersAt, place, name);
    const before = old?.picks ?? new Set<string>();
    const now = selector === null ? new Set<string>() : this.#thingsFor(selector);
    if (selector === null) this.#pickers.delete(name);
    else {
      const places = placesOfSelector(selector);
      this.#pickers.set(name, { selector, places, picks: now });
      for (const place of places) add(this.#pickersAt, place, name);
    }
    const moves = difference(before, now);
    for (const id of [...moves.came, ...moves.went]) {
      const thing = this.#things.get(id)!;
      const others = [...thing.pickedBy].filter((other) => other !== name);
      thing.pickedBy = new Set(now.has(id) ? [...others, name] : others);
    }
    return moves;
  }

  /** Names of the selectors that pick the thing. */
  pickedBy(id: string): ReadonlySet<string> {
    return this.#things.get(id)?.pickedBy ?? LabelIndex.#nobody;
  }

  #pickersOf(labels: Labels): ReadonlySet<string> {
    if (this.#pickers.size === 0) return LabelIndex.#nobody;
    const found = new Set<string>();
    for (const place of ['', ...placesOfLabels(labels)]) {
      for (const name of this.#pickersAt.get(place) ?? [])
        if (selects(this.#pickers.get(name)!.selector, labels)) found.add(name);
    }
    return found.size === 0 ? LabelIndex.#nobody : found;
  }

  #thingsFor(selector: Selector): Set<string> {
    const found = new Set<string>();
    const places = placesOfSelector(selector);
    const candidates =
      places[0] === '' ? [this.#things.keys()] : places.map((place) => this.#thingsAt.get(place) ?? []);
    for (const ids of candidates)
      for (const id of ids) if (selects(selector, this.#things.get(id)!.labels)) found.add(id);
    return found;
  }
}

function placesOfLabels(labels: Labels): string[] {
  return Object.entries(labels).flatMap(([key, value]) => [key, `${key}=${value}`]);
}

function placesOfSelector(selector: Selector): string[] {
  const required: Requirement | null = requirementOf(selector);
  if (required === null) return [''];
  return required.values === null
    ? [required.key]
    : required.values.map((value) => `${required.key}=${value}`);
}

function difference(before: ReadonlySet<string>, now: ReadonlySet<string>): Moves {
  if (before.size === 0 && now.size === 0) return NONE;
  return {
    came: [...now].filter((each) => !before.has(each)),
    went: [...before].filter((each) => !now.has(each)),
  };
}

function add(index: Map<string, Set<string>>, place: string, entry: string): void {
  const entries = index.get(place);
  if (entries === undefined) index.set(place, new Set([entry]));
  else entries.add(entry);
}

function remove(index: Map<string, Set<string>>, place: string, entry: string): void {
  const entries = index.get(place);
  entries?.delete(entry);
  if (entries?.size === 0) index.delete(place);
}
