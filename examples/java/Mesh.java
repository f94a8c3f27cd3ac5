// A client in Java with a plain socket: NATS is lines of text. The protocol is in nats/PROTOCOL.md.
//
//     mesh up --engine simulator --name demo            in one terminal
//     java Mesh.java 127.0.0.1 4222 demo                in another; Java 17 or newer
//
// A real program uses jnats, which reconnects and supports TLS and logins, and a JSON library instead of `field`.
import static java.nio.charset.StandardCharsets.*;

import java.io.*;
import java.util.regex.*;

class Mesh {
    static final String INBOX = "_INBOX." + java.util.UUID.randomUUID();
    static BufferedReader in; // one char per byte: the server counts bytes
    static PrintStream out;

    static void ask(String subject, String header, String body) { // answered on INBOX
        int head = 12 + header.length(), all = head + body.getBytes(UTF_8).length;
        out.print("HPUB %s %s %d %d\r\nNATS/1.0\r\n%s\r\n%s\r\n".formatted(subject, INBOX, head, all, header, body));
    }

    static String next() throws IOException { // the body of the next message; an exception after 10 s of silence
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            if (line.equals("PING")) out.print("PONG\r\n");
            if (line.startsWith("-ERR")) throw new IOException(line);
            if (!line.matches("H?MSG .*")) continue;
            String[] words = line.split(" ");
            char[] bytes = new char[Integer.parseInt(words[words.length - 1]) + 2];
            for (int n = 0; n < bytes.length; ) n += in.read(bytes, n, bytes.length - n);
            int head = line.startsWith("H") ? Integer.parseInt(words[words.length - 2]) : 0;
            return new String(new String(bytes, head, bytes.length - head - 2).getBytes(ISO_8859_1), UTF_8);
        }
        throw new EOFException("the server hung up");
    }

    static String field(String json, String name) { // a list, a string or a number; "0" if there is none
        String value = "\"%s\":[\"\\[]?((?<=\\[)[^]]*|(?<=\")(?:\\\\.|[^\"\\\\])*|\\d+)".formatted(name);
        Matcher found = Pattern.compile(value).matcher(json);
        return found.find() ? found.group(1).translateEscapes() : "0";
    }

    public static void main(String[] arguments) throws IOException {
        var socket = new java.net.Socket(arguments[0], Integer.parseInt(arguments[1]));
        socket.setSoTimeout(10_000);
        in = new BufferedReader(new InputStreamReader(socket.getInputStream(), ISO_8859_1));
        out = new PrintStream(socket.getOutputStream(), true, UTF_8);
        out.print("CONNECT {\"verbose\": false, \"headers\": true}\r\nSUB %s 1\r\n".formatted(INBOX));

        String job = "java-" + java.util.UUID.randomUUID(), queue = "mesh.req." + arguments[2] + ".standard.default.any";
        String stored = "job %s is stored as MESH_REQUESTS %s", event = ""; // it runs once, even if it is sent again
        String request = "{\"id\": \"%s\", \"prompt\": \"Once upon a time\", \"max_tokens\": 40}";
        out.print("SUB mesh.live.default.%s 2\r\n".formatted(job)); // before the publish: nothing is missed
        ask(queue, "Nats-Msg-Id: default.%s\r\n".formatted(job), request.formatted(job));
        for (int attempt = 0, expected = 0; !field(event, "type").equals("result"); event = next()) {
            if (event.startsWith("{\"stream\"")) System.out.println(stored.formatted(job, field(event, "seq")));
            int number = Integer.parseInt(field(event, "attempt")), index = Integer.parseInt(field(event, "index"));
            if (index > expected) { // a gap: ask the journal for a replay
                ask("mesh.ctl.default.replay." + job, "", "{\"index\": %d}".formatted(expected));
            } else if (number > attempt) { // a worker took over: it continues, or begins again (index 0)
                attempt = number;
                expected = index;
            }
            if (number < attempt || index != expected || !field(event, "type").equals("delta")) continue; // a repeat
            System.out.print(field(event, "text"));
            expected += field(event, "token_ids").split(",").length;
        }
        ask("$JS.API.DIRECT.GET.KV_mesh_results.$KV.mesh_results.default." + job, "", ""); // the key-value bucket
        System.out.println("\n" + next());
        ask(queue, "", request.formatted(job += "-2"));
        ask("mesh.ctl.default.cancel." + job, "", "");
        System.out.println(stored.formatted(job, field(next(), "seq")) + "\n" + next());
    }
}
