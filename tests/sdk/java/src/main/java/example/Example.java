package example;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.boot.web.servlet.context.ServletWebServerInitializedEvent;
import org.springframework.context.event.EventListener;
import org.springframework.http.HttpStatus;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.ResponseStatus;
import org.springframework.web.bind.annotation.RestController;

/**
 * The smallest Java service that sends its traces to tailkeep: Spring Boot with OpenTelemetry's starter, which
 * instruments it. The endpoint comes from OTEL_EXPORTER_OTLP_ENDPOINT, for example http://localhost:4318.
 */
@SpringBootApplication
@RestController
public class Example {
    public static void main(String[] arguments) {
        SpringApplication.run(Example.class, arguments);
    }

    @EventListener
    void listening(ServletWebServerInitializedEvent event) {
        System.out.println("listening " + event.getWebServer().getPort());
    }

    @GetMapping("/fine")
    void fine() {}

    @GetMapping("/fail")
    @ResponseStatus(HttpStatus.INTERNAL_SERVER_ERROR)
    void fail() {}

    @GetMapping("/slow")
    void slow() throws InterruptedException {
        Thread.sleep(700);
    }
}
