// A small model behind as much of Ollama's API as a client needs: node model-server.mjs MODEL.gguf THREADS
// Takes a free port of the loopback interface and prints one line of JSON when it listens: {"port": 34567, "model": "…"}
import http from "node:http";
import path from "node:path";
import {getLlama, LlamaChatSession} from "node-llama-cpp";

const [, , file, threads] = process.argv;
const name = path.basename(file, ".gguf").toLowerCase();

// Prebuilt for the CPU, never compiled here: that would need a compiler and minutes.
const llama = await getLlama({gpu: false, build: "never", logLevel: "error", maxThreads: Number(threads)});
const model = await llama.loadModel({modelPath: file});
const context = await model.createContext({contextSize: 4096, threads: Number(threads), sequences: 1});
const sequence = context.getSequence();
const grammars = new Map();

// One at a time: there is one sequence, whose state keeps the beginning that all prompts share.
let last = Promise.resolve();
const inTurn = (work) => (last = last.then(work, work));

// So small a model does not know when to stop, so the grammar ends its texts for it.
const TEXT = 60;
const ITEMS = 1;

function bounded(schema) {
    const {type, properties, items} = schema;
    if (schema.enum) return {enum: schema.enum};
    if (type === "object")
        return {
            type,
            properties: Object.fromEntries(Object.entries(properties).map(([key, value]) => [key, bounded(value)])),
            additionalProperties: false,
        };
    if (type === "array") return {type, items: bounded(items), maxItems: ITEMS};
    return type === "string" ? {type, maxLength: TEXT} : {type};
}

async function grammarFor(format) {
    if (!format) return undefined;
    const key = JSON.stringify(format);
    if (!grammars.has(key))
        grammars.set(
            key,
            format === "json" ? await llama.getGrammarFor("json") : await llama.createGrammarForJsonSchema(bounded(format)),
        );
    return grammars.get(key);
}

function chat({messages, format, options = {}}, onText, signal) {
    return inTurn(async () => {
        signal.throwIfAborted();
        const system = messages.filter(({role}) => role === "system").map(({content}) => content).join("\n");
        const session = new LlamaChatSession({contextSequence: sequence, systemPrompt: system, autoDisposeSequence: false});
        try {
            const before = sequence.tokenMeter.getState();
            const answer = await session.promptWithMeta(messages.findLast(({role}) => role === "user")?.content ?? "", {
                grammar: await grammarFor(format),
                maxTokens: options.num_predict,
                temperature: options.temperature ?? 0,
                repeatPenalty: {penalty: 1.08, lastTokens: 96},
                onTextChunk: onText,
                signal,
            });
            const {usedInputTokens, usedOutputTokens} = sequence.tokenMeter.diff(before);
            return {
                text: answer.responseText,
                end: {
                    done_reason: answer.stopReason === "maxTokens" ? "length" : "stop",
                    prompt_eval_count: usedInputTokens,
                    eval_count: usedOutputTokens,
                },
            };
        } finally {
            session.dispose({disposeSequence: false});
        }
    });
}

async function answerChat(request, response, asked) {
    const gone = new AbortController();
    response.on("close", () => gone.abort());
    const part = (content, done, end) => ({
        model: asked.model, created_at: new Date().toISOString(), message: {role: "assistant", content}, done, ...end,
    });
    if (asked.stream === false) {
        const {text, end} = await chat(asked, undefined, gone.signal);
        return send(response, 200, part(text, true, end));
    }
    response.writeHead(200, {"content-type": "application/x-ndjson"});
    const {end} = await chat(asked, (text) => response.write(JSON.stringify(part(text, false)) + "\n"), gone.signal);
    response.end(JSON.stringify(part("", true, end)) + "\n");
}

function send(response, status, body) {
    response.writeHead(status, {"content-type": "application/json"});
    response.end(JSON.stringify(body));
}

const FIXED = {
    "/api/version": {version: "0.13.0"},
    "/api/tags": {models: [{name, model: name, details: {format: "gguf"}}]},
    "/api/show": {details: {format: "gguf"}, model_info: {}, capabilities: ["completion"], template: ""},
};

const server = http.createServer(async (request, response) => {
    try {
        const chunks = [];
        for await (const chunk of request) chunks.push(chunk);
        const route = request.url.split("?")[0];
        if (route === "/api/chat") await answerChat(request, response, JSON.parse(Buffer.concat(chunks).toString()));
        else if (route in FIXED) send(response, 200, FIXED[route]);
        else send(response, 404, {error: `no ${route} here`});
    } catch (error) {
        if (response.headersSent) response.destroy();
        else send(response, 500, {error: String(error)});
    }
});
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({port: server.address().port, model: name})));
