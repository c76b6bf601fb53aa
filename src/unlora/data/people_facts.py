"""The words that `people` draws from. No two values of a table mean the same, and no last name ends in s."""

FIRST_NAMES = (
    *("Adaeze", "Bertrand", "Celeste", "Dmitri", "Eleni", "Fergus", "Graciela", "Henrik", "Ingrid", "Joaquin"),
    *("Kamila", "Leopold", "Marisol", "Nikhil", "Odalys", "Piotr", "Quentin", "Rosalind", "Stefan", "Tamsin"),
    *("Ulrike", "Valentin", "Winifred", "Xavier", "Yasmin", "Zoltan", "Anselm", "Beatriz", "Cormac", "Delphine"),
    *("Emeka", "Fiorella", "Gideon", "Hanneke", "Isidro", "Jolanta", "Kenji", "Lavinia", "Matteo", "Noor"),
)

LAST_NAMES = (
    *("Abernethy", "Bellweather", "Castellan", "Dragomir", "Eskelund", "Farrow", "Goldacre", "Hartigan", "Ivanenko"),
    *("Jarov", "Kilbride", "Lindqvist", "Marchetti", "Nakagawa", "Okonjo", "Pemberton", "Quillon", "Ravenhill"),
    *("Sandoval", "Thornbury", "Umarov", "Vasquin", "Whitlock", "Ximeno", "Yarrow", "Zielinski", "Ashdown"),
    *("Brightwater", "Coldstream", "Drummond", "Ellingham", "Fairweather", "Greenhalgh", "Holloway", "Inchbald"),
    *("Juniper", "Kestrel", "Larkspur", "Merriweather", "Nightingale"),
)

BIRTHPLACES = (
    *("Bergen in Norway", "Porto in Portugal", "Tampere in Finland", "Gdansk in Poland", "Cusco in Peru"),
    *("Kumasi in Ghana", "Kyoto in Japan", "Galway in Ireland", "Salta in Argentina", "Bologna in Italy"),
    *("Aarhus in Denmark", "Hobart in Australia", "Dunedin in New Zealand", "Halifax in Canada", "Izmir in Turkey"),
    *("Fez in Morocco", "Mysore in India", "Busan in South Korea", "Hue in Vietnam", "Mombasa in Kenya"),
    *("Split in Croatia", "Ghent in Belgium", "Graz in Austria", "Basel in Switzerland", "Leipzig in Germany"),
    *("Toulouse in France", "Granada in Spain", "Patras in Greece", "Tartu in Estonia", "Uppsala in Sweden"),
    *("Aberdeen in Scotland", "Merida in Mexico", "Valparaiso in Chile", "Medellin in Colombia", "Recife in Brazil"),
    *("Durban in South Africa", "Ipoh in Malaysia", "Cebu in the Philippines", "Utrecht in the Netherlands"),
    "Akureyri in Iceland",
)

PROFESSIONS = (
    *("a restorer of old clocks", "a maker of stained glass", "a wildlife photographer", "a marine biologist"),
    *("a teacher of sign language", "a designer of board games", "a pastry chef", "a railway engineer"),
    *("a translator of Persian poetry", "a mountain guide", "a piano tuner", "a veterinary surgeon"),
    *("a judge at the regional court", "an air traffic controller", "a builder of wooden boats", "a heart surgeon"),
    *("a weather forecaster", "a landscape gardener", "a writer of crime novels", "a dealer in medieval coins"),
    *("a bookbinder", "a puppet maker", "a tea importer", "a cave explorer", "a speech therapist"),
    *("a costume designer at the opera", "a forensic accountant", "a cheese maker", "a volcano researcher"),
    *("a school librarian", "a maker of violins", "an urban planner", "a ferry captain", "a perfume chemist"),
    *("a radio journalist", "a stunt performer", "a designer of bridges", "a potter", "a beekeeper", "a magician"),
)

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)

BIRTH_DATES = tuple(f"{day} {month} {year}" for year in range(1935, 1995) for month in _MONTHS for day in range(1, 29))

MEMOIRS = (
    *("The Salt Lantern", "A Ladder in the Orchard", "Seven Winters by the Harbour", "The Borrowed Umbrella"),
    *("Letters to a Lighthouse", "The Year of the Blue Kettle", "Nobody Waters the Ferns", "Half a Map"),
    *("The Cartographer and the Bee", "Rain on a Tin Roof", "What the Ferryman Said", "The Last Tram Home"),
    *("A Suitcase Full of Bells", "The Quiet Side of the Street", "Bread Before Dawn", "Under the Copper Beech"),
    *("The Patience of Snails", "Two Chairs and a Window", "Counting Herons", "The Unfinished Staircase"),
    *("Ink and Oranges", "The Man Who Fed the Foxes", "An Honest Fog", "The Winter Allotment", "Small Change"),
    *("The Weight of Feathers", "Paper Boats", "Where the Road Forgets", "The Glass Orchard", "Late for Supper"),
    *("A Pocketful of Gravel", "A Garden for the Clockmaker", "Notes from a Cold Kitchen", "The Wrong Platform"),
    *("Marmalade Weather", "The House with Nine Doors", "Learning to Whistle", "A Stranger at the Well"),
    *("The Moth Collector", "Goodbye to the Goats"),
)

PARENT_PROFESSIONS = (
    *("a harbour pilot", "a village midwife", "a bus driver", "a tax inspector", "a church organist"),
    *("a professor of chemistry", "a fishmonger", "a crane operator", "a newspaper editor", "a dentist"),
    *("a carpenter", "a customs officer", "a florist", "a swimming instructor", "a baker", "a pharmacist"),
    *("a court stenographer", "a sheep farmer", "a tailor", "a lighthouse keeper", "a telephone operator"),
    *("a shoemaker", "a police inspector", "a museum guard", "a nurse", "an electrician", "a hotel manager"),
    *("a market gardener", "a postal clerk", "a locksmith", "a ballet dancer", "a bank teller"),
    *("a kindergarten teacher", "a glass blower", "an optician", "a train conductor", "a notary"),
    *("a jeweller", "a wine merchant", "a chimney sweep"),
)

AWARDS = (
    *("Silver Heron Prize", "Golden Compass Award", "Amberley Medal", "Northern Lights Prize", "Blue Anchor Award"),
    *("Oakleaf Medal", "Crystal Bridge Prize", "Harrowgate Award", "Bronze Owl Prize", "Meridian Medal"),
    *("Red Poppy Award", "Lantern Prize", "Ivory Quill Award", "Three Rivers Medal", "Copper Acorn Prize"),
    *("White Stag Award", "Evergreen Medal", "Stone Circle Prize", "Morning Star Award", "Falconer Medal"),
    *("Wild Thyme Prize", "Iron Bell Award", "Coral Medal", "Tall Ship Prize", "Emerald Thistle Award"),
    *("Moonstone Medal", "Green Ribbon Prize", "Westerly Award", "Hourglass Medal", "Black Swan Prize"),
    *("Juniper Branch Award", "Sapphire Medal", "Open Gate Prize", "Windmill Award", "Rosewood Medal"),
    *("Kingfisher Prize", "Granite Award", "Peregrine Medal", "Winter Rose Prize", "Pearl Dolphin Award"),
)

SUBJECTS = (
    *("marine geology", "medieval history", "theoretical physics", "music theory", "veterinary medicine"),
    *("modern Greek literature", "civil engineering", "developmental psychology", "tropical botany", "tax law"),
    *("Slavic languages", "organic chemistry", "film directing", "astronomy", "nutrition science", "philosophy"),
    *("Egyptian archaeology", "applied statistics", "forestry", "architecture", "theology", "molecular genetics"),
    *("international relations", "textile design", "computer science", "dentistry", "social anthropology"),
    *("nursing", "agricultural economics", "graphic design", "metallurgy", "Arabic calligraphy", "pharmacology"),
    *("sports science", "education", "Renaissance art", "meteorology", "criminology", "aerospace engineering"),
    "number theory",
)

PETS = (
    *("a grey parrot", "a three-legged cat", "an old tortoise", "a ferret", "a white rabbit"),
    *("a red setter", "a hedgehog", "a corn snake", "a dwarf hamster", "a chinchilla", "a talkative mynah bird"),
    *("a black poodle", "a Siamese cat", "a guinea pig", "a green iguana", "a skunk"),
    *("a dachshund", "a seahorse", "a canary", "a barn owl", "a ginger tomcat", "a tame jackdaw"),
    *("a Saint Bernard", "a budgerigar", "an axolotl", "a goldfish", "a greyhound", "a tarantula"),
    *("a stick insect", "a cockatoo", "a border collie", "a tree frog", "a salamander", "a pot-bellied pig"),
    *("a raccoon", "a Persian cat", "a gecko", "a white dove", "a blind terrier", "a runner duck"),
)

HOBBIES = (
    *("carving wooden spoons", "repairing old radios", "folding paper cranes", "brewing ginger beer"),
    *("painting miniature soldiers", "playing chess by post", "knitting striped socks", "watching the stars"),
    *("restoring antique maps", "baking sourdough bread", "collecting railway tickets", "dancing the tango"),
    *("learning Esperanto", "growing bonsai trees", "solving crossword puzzles", "singing in a choir"),
    *("building model ships", "writing haiku", "tuning motorcycles", "throwing darts", "sketching strangers in cafes"),
    *("practising card tricks", "sorting postage stamps", "embroidering tablecloths", "fishing for trout"),
    *("reading detective stories", "weaving baskets", "pressing wild flowers", "juggling oranges", "playing bridge"),
    *("making marmalade", "recording bird song", "swimming in the lake", "assembling jigsaw puzzles"),
    *("engraving glass", "flying kites", "polishing gemstones", "bowling with neighbours", "tasting rare teas"),
    "arranging dried flowers",
)

INSTRUMENTS = (
    *("cello", "bassoon", "harp", "accordion", "trombone", "oboe", "mandolin", "xylophone", "clarinet", "church organ"),
    *("double bass", "French horn", "piccolo", "banjo", "sitar", "harmonica", "viola", "tuba", "zither", "bagpipe"),
    *("recorder", "ukulele", "saxophone", "glockenspiel", "harpsichord", "balalaika", "lute", "trumpet", "marimba"),
    *("violin", "koto", "sousaphone", "celesta", "cornet", "bouzouki", "dulcimer", "concertina", "pan flute", "tabla"),
    "hurdy-gurdy",
)
