// What the page says, in English and Korean.

const WORDS = {
    layer: ["Quantity", "표시량"],
    mode: ["Maps", "비교"],
    both: ["side by side", "나란히"],
    first: ["first", "첫째"],
    second: ["second", "둘째"],
    difference: ["difference", "차이"],
    language: ["Language", "언어"],
    range: ["Range", "표시 범위"],
    low: ["from", "최소"],
    high: ["to", "최대"],
    colours: ["Colours", "색상표"],
    auto: ["Automatic", "자동"],
    form: ["Form removed", "제거할 형상"],
    piston: ["piston", "피스톤"],
    tilt: ["tilt", "기울기"],
    power: ["power (sphere)", "초점 (구면)"],
    astigmatism: ["astigmatism", "비점수차"],
    coma: ["coma", "코마"],
    spherical: ["spherical", "구면수차"],
    flags: ["Flags painted", "표시할 플래그"],
    about: ["About this map", "지도 정보"],
    size: ["size", "크기"],
    pixel: ["pixel", "픽셀 크기"],
    unknown: ["not known: lengths are in pixels", "알 수 없음: 길이는 픽셀 단위"],
    wavelengths: ["wavelengths", "파장"],
    valid: ["valid", "유효"],
    sigma: ["median sigma", "시그마 중앙값"],
    method: ["method", "방법"],
    profile: ["Profile", "프로파일"],
    csv: ["Save CSV", "CSV 저장"],
    close: ["Close", "닫기"],
    home: ["Whole map", "전체 보기"],
    in: ["Closer", "확대"],
    out: ["Farther", "축소"],
    folder: ["Full resolution: pick this folder", "전체 해상도: 이 폴더를 선택하세요"],
    line: ["Line", "직선"],
    circle: ["Circle", "원"],
    picture: ["Save PNG", "PNG 저장"],
    crop: ["Save the part shown", "보이는 부분 저장"],
    help: ["Keys", "단축키"],
    keys: [
        "arrows pan, + - zoom, 0 whole map, p line, c circle, a automatic range, s save PNG, Escape ends a tool",
        "화살표 이동, + - 확대·축소, 0 전체, p 직선, c 원, a 자동 범위, s PNG 저장, Escape 도구 종료",
    ],
    drawing: ["drag from one end to the other", "한쪽 끝에서 다른 쪽 끝까지 끄세요"],
    circling: ["drag from the centre to the rim", "중심에서 가장자리까지 끄세요"],
    nowebgl: [
        "This browser has no WebGL 2: the map is drawn on a canvas, which is slower.",
        "이 브라우저에는 WebGL 2가 없어 캔버스로 그립니다. 더 느립니다.",
    ],
    nothing: ["no measurement here", "측정값 없음"],
    missing: ["a part of the file is missing", "파일의 일부가 없습니다"],
    failed: ["the map cannot be read", "지도를 읽을 수 없습니다"],
    height_nm: ["height", "높이"],
    sigma_nm: ["sigma", "시그마"],
    modulation: ["modulation", "변조"],
    slope_y_nm_per_px: ["slope y", "기울기 y"],
    slope_x_nm_per_px: ["slope x", "기울기 x"],
    mean: ["mean", "평균"],
    pv: ["PV", "PV"],
    rq: ["Rq", "Rq"],
    step: ["ends", "양 끝 차이"],
    length: ["length", "길이"],
    flag1: ["invalid", "무효"],
    flag2: ["saturated", "포화"],
    flag4: ["low modulation", "낮은 변조"],
    flag8: ["order ambiguous", "차수 모호"],
    flag16: ["order changed", "차수 변경"],
    flag32: ["in-painted", "채워 넣음"],
} as const;

export type Word = keyof typeof WORDS;
export const LANGUAGES = ["en", "ko"] as const;
export type Language = (typeof LANGUAGES)[number];

export class Words {
    constructor(public language: Language) {}

    say(word: Word): string {
        return WORDS[word][LANGUAGES.indexOf(this.language)];
    }

    has(word: string): word is Word {
        return word in WORDS;
    }
}
