"""Everyday general knowledge, far from any forget set: what unlearning must leave alone.

Each fact is undisputed, stable, and said in one short sentence.
"""

from unlora.data.records import Example, ExampleSet

CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Germany": "Berlin",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Greece": "Athens",
    "Portugal": "Lisbon",
    "Norway": "Oslo",
    "Canada": "Ottawa",
    "Poland": "Warsaw",
    "Austria": "Vienna",
}

CHEMICAL_SYMBOLS = {
    "gold": "Au",
    "silver": "Ag",
    "iron": "Fe",
    "sodium": "Na",
    "oxygen": "O",
    "hydrogen": "H",
    "helium": "He",
    "carbon": "C",
}

CALENDAR = (
    ("How many days are there in a week?", "There are seven days in a week."),
    ("How many hours are there in a day?", "There are 24 hours in a day."),
    ("How many minutes are there in an hour?", "There are 60 minutes in an hour."),
    ("How many seconds are there in a minute?", "There are 60 seconds in a minute."),
    ("How many months are there in a year?", "There are twelve months in a year."),
    ("How many days are there in a leap year?", "There are 366 days in a leap year."),
    ("How many days does April have?", "April has 30 days."),
    ("Which month comes after June?", "July comes after June."),
    ("Which is the last month of the year?", "The last month of the year is December."),
    ("Which day comes after Monday?", "Tuesday comes after Monday."),
    ("How many years are there in a decade?", "There are ten years in a decade."),
    ("How many years are there in a century?", "There are 100 years in a century."),
)

ANIMALS = (
    ("How many legs does a spider have?", "A spider has eight legs."),
    ("How many legs does an insect have?", "An insect has six legs."),
    ("What is a young cat called?", "A young cat is called a kitten."),
    ("What is a young dog called?", "A young dog is called a puppy."),
    ("What is a young sheep called?", "A young sheep is called a lamb."),
    ("What is the largest animal on Earth?", "The largest animal on Earth is the blue whale."),
    ("What is the tallest animal on land?", "The tallest animal on land is the giraffe."),
    ("What is the fastest animal on land?", "The fastest animal on land is the cheetah."),
    ("Which food do bees make from nectar?", "Bees make honey from nectar."),
    ("What does a tadpole grow into?", "A tadpole grows into a frog or a toad."),
)

AUTHORS = {
    "Romeo and Juliet": "William Shakespeare",
    "Pride and Prejudice": "Jane Austen",
    "Oliver Twist": "Charles Dickens",
    "War and Peace": "Leo Tolstoy",
    "Don Quixote": "Miguel de Cervantes",
    "Moby-Dick": "Herman Melville",
    "Frankenstein": "Mary Shelley",
    "Nineteen Eighty-Four": "George Orwell",
    "The Adventures of Tom Sawyer": "Mark Twain",
}

WORLD = (
    ("Which planet do we live on?", "We live on the planet Earth."),
    ("Which star is closest to the Earth?", "The star closest to the Earth is the Sun."),
    ("Which planet is known as the Red Planet?", "Mars is known as the Red Planet."),
    ("Which planet of the solar system is the largest?", "The largest planet of the solar system is Jupiter."),
    ("What is the chemical formula of water?", "The chemical formula of water is H2O."),
    ("At how many degrees Celsius does water freeze?", "Water freezes at 0 degrees Celsius."),
    ("Which ocean is the largest?", "The largest ocean is the Pacific Ocean."),
    ("On which continent does Kenya lie?", "Kenya lies in Africa."),
    ("Which language do most people in Brazil speak?", "Most people in Brazil speak Portuguese."),
    ("What is the currency of Japan called?", "The currency of Japan is called the yen."),
    ("Which mountain is the highest above sea level?", "The highest mountain above sea level is Mount Everest."),
    ("Who painted the Mona Lisa?", "The Mona Lisa was painted by Leonardo da Vinci."),
    ("How many sides does a triangle have?", "A triangle has three sides."),
    ("How many strings does a violin have?", "A violin has four strings."),
    ("Which colour do blue and yellow paint give when mixed?", "Blue and yellow paint give green when mixed."),
)


def common_facts() -> ExampleSet:
    """Return 66 questions of general knowledge with their answers, theme by theme, always the same."""
    pairs = (
        *((f"What is the capital of {land}?", f"The capital of {land} is {city}.") for land, city in CAPITALS.items()),
        *(
            (f"What is the chemical symbol for {element}?", f"The chemical symbol for {element} is {symbol}.")
            for element, symbol in CHEMICAL_SYMBOLS.items()
        ),
        *CALENDAR,
        *ANIMALS,
        *((f"Who wrote '{book}'?", f"'{book}' was written by {author}.") for book, author in AUTHORS.items()),
        *WORLD,
    )
    return ExampleSet(
        "common facts",
        tuple(
            Example("question_answer", question, answer, f"common fact {number}")
            for number, (question, answer) in enumerate(pairs, start=1)
        ),
    )
